//! What goes wrong with one service or one client is theirs: nginx does not take it for a fault of the gateways, and nobody
//! else notices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::fleet::Fleet;
use crate::publisher::Publisher;
use crate::support::http::Answer;
use crate::support::raw::read_head;
use crate::support::{Hub, within};

/// More than two, which was what nginx bore of a gateway in a second.
const ROUNDS: usize = 12;

/// A service that answers by path: `/ill` with 503, `/head/N` with a field of so many bytes. Its URL, and how many requests
/// it has seen.
async fn service() -> (String, Arc<AtomicUsize>) {
    let seen = Arc::<AtomicUsize>::default();
    let counted = seen.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                let head = read_head(&mut socket).await;
                counted.fetch_add(1, SeqCst);
                let path = head.split(' ').nth(1).unwrap_or_default();
                let answer = match path.strip_prefix("/head/") {
                    Some(bytes) => {
                        let field = "x".repeat(bytes.parse().expect("a number"));
                        format!("HTTP/1.1 200 OK\r\nx-long: {field}\r\n")
                    }
                    None => "HTTP/1.1 503 Ill\r\n".to_owned(),
                };
                let rest = "content-length: 3\r\nconnection: close\r\n\r\nown";
                // Whoever asked may have gone.
                let _ = socket.write_all((answer + rest).as_bytes()).await;
            });
        }
    });
    (format!("http://{address}"), seen)
}

/// Three gateways with the service `bad`, and how many requests that has seen.
async fn fleet() -> (Fleet, Arc<AtomicUsize>) {
    let (url, seen) = service().await;
    let upstreams = json!({ "bad": [url] }).to_string();
    let variables = [("UPSTREAMS", upstreams.as_str()), ("RATE_LIMIT_MAX", "0")];
    (Fleet::start(3, &variables).await, seen)
}

/// Asks for something again and again beside a back end that publishes, of which every publication must be taken at once.
/// Answers what was answered, and how often.
async fn ask_beside_publishes(door: &Hub, ask: impl AsyncFn() -> Answer) -> BTreeMap<u16, usize> {
    let publisher = Publisher::start(Hub::elsewhere(door.address().port()), "news");
    let mut answers = BTreeMap::new();
    for _ in 0..ROUNDS {
        let answer = ask().await;
        *answers.entry(answer.status).or_default() += 1;
        publisher.publishes(5).await;
    }
    let published = publisher.stop().await;
    assert_eq!(published.repeated, 0, "{published:?} beside {answers:?}");
    answers
}

#[tokio::test]
async fn a_service_that_is_ill_takes_no_gateway_with_it() {
    let (fleet, _) = fleet().await;
    let nginx = fleet.nginx();
    for path in ["/sse/bad/ill", "/ws/bad?path=/ill", "/api/bad/ill"] {
        let answers = ask_beside_publishes(&nginx, async || nginx.get(path).await).await;
        assert!(!answers.contains_key(&502), "{path}: {answers:?}");
        if !path.starts_with("/ws/") {
            assert_eq!(answers, BTreeMap::from([(503, ROUNDS)]), "{path}");
        }
    }
}

/// It may be asked again by the gateway that carries the request, and by no other: each would, just when it is overloaded.
#[tokio::test]
async fn a_service_that_is_ill_is_asked_by_one_gateway() {
    let (fleet, seen) = fleet().await;
    for path in ["/sse/bad/ill", "/api/bad/ill"] {
        assert_eq!(fleet.gateway(1).get(path).await.status, 503);
        let directly = seen.swap(0, SeqCst);
        assert_eq!(fleet.nginx().get(path).await.status, 503);
        let through_nginx = seen.swap(0, SeqCst);
        assert!(
            directly > 0 && through_nginx <= directly,
            "{path}: {through_nginx}"
        );
    }
}

/// nginx has room for heads of 4 KiB where it is told nothing, and took a longer one for a gateway's failure.
#[tokio::test]
async fn heads_that_a_gateway_passes_on_pass_through_nginx_too() {
    let (fleet, _) = fleet().await;
    let nginx = fleet.nginx();
    for path in [
        "/api/bad/head/5000",
        "/api/bad/head/60000",
        "/sse/bad/head/60000",
    ] {
        let answers = ask_beside_publishes(&nginx, async || nginx.get(path).await).await;
        assert_eq!(answers, BTreeMap::from([(200, ROUNDS)]), "{path}");
    }
    let direct = fleet.gateway(1).get("/api/bad/head/60000").await;
    let through = nginx.get("/api/bad/head/60000").await;
    assert_eq!(direct.header("x-long"), through.header("x-long"));
}

/// Sends so much to a service that there is not, all of it before it looks for an answer.
async fn upload_for_nobody(door: &Hub, bytes: usize) -> Answer {
    let mut stream = TcpStream::connect(door.address()).await.expect("the door");
    let head = format!(
        "POST /api/none/x HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n",
        door.host()
    );
    let talk = async {
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream
            .write_all(&vec![b'x'; bytes])
            .await
            .expect("all of it sent");
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .await
            .expect("an answer and the end");
        Answer::parse(&answer)
    };
    within("an answer", talk).await
}

/// A gateway knows from the head that it refuses an upload. It read a part of the rest and cut: whoever was still sending
/// lost the answer, and to nginx it was the gateway that had failed.
#[tokio::test]
async fn whoever_uploads_in_vain_is_told_so() {
    let (fleet, _) = fleet().await;
    for door in [fleet.nginx(), fleet.gateway(1)] {
        for bytes in [4_000_000, 8_000_000] {
            let upload = async || upload_for_nobody(&door, bytes).await;
            let answers = ask_beside_publishes(&door, upload).await;
            assert_eq!(answers, BTreeMap::from([(404, ROUNDS)]), "{bytes} bytes");
        }
    }
}

#[tokio::test]
async fn what_nginx_refuses_itself_is_an_error_in_the_form_of_the_gateways() {
    let mut fleet = Fleet::start(1, &[]).await;
    let nginx = fleet.nginx();
    let mut stream = TcpStream::connect(nginx.address()).await.expect("nginx");
    let request = format!(
        "POST /hub/publish HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
        nginx.host(),
        11 * 1024 * 1024
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    // nginx goes on waiting for what it will not take.
    let head = read_head(&mut stream).await;
    let length = Answer::parse(head.as_bytes())
        .header("content-length")
        .map(str::parse);
    let mut body = vec![0; length.expect("a length").expect("a number")];
    within("a body", stream.read_exact(&mut body))
        .await
        .expect("a body");
    Answer::parse(&[head.as_bytes(), &body].concat()).expect_error(413, "too_large");
    fleet.tell("kill 1");
    fleet.hear("gateway-1 ended").await;
    for answer in [
        nginx
            .post("/hub/publish", &json!({"channel": "news", "data": 1}))
            .await,
        nginx.post("/sessions/login", &json!({})).await,
        nginx.get("/hub/page.html").await,
    ] {
        answer.expect_error(502, "unavailable");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}
