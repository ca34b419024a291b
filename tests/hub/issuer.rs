//! Tokens of an identity provider: signed with keys that only it has, and that it changes.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::shims;
use crate::support::hub::SECRET;
use crate::support::raw::read_head;
use crate::support::token::{in_seconds, signed, token_of};
use crate::support::ws::{Socket, handshake};
use crate::support::{Hub, eventually, hub};

/// A key pair that openssl makes.
struct Pair {
    algorithm: Algorithm,
    private: EncodingKey,
    /// PEM.
    public: String,
}

impl Pair {
    fn new(algorithm: Algorithm) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("key-{}-{number}.pem", std::process::id()));
        let kind: &[&str] = match algorithm {
            Algorithm::EdDSA => &["-algorithm", "ed25519"],
            Algorithm::ES256 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Algorithm::ES384 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            _ => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        };
        openssl(&[&["genpkey"], kind, &["-out", path(&file)]].concat());
        let public = openssl(&["pkey", "-in", path(&file), "-pubout"]);
        let pem = std::fs::read(&file).expect("a key");
        let _ = std::fs::remove_file(&file);
        let private = match algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_pem(&pem),
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(&pem),
            _ => EncodingKey::from_rsa_pem(&pem),
        };
        Self {
            algorithm,
            private: private.expect("a private key"),
            public,
        }
    }

    /// As a key set has it, under a name.
    fn jwk(&self, id: &str) -> Value {
        let jwk = Jwk::from_encoding_key(&self.private, self.algorithm).expect("a public key");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = id.into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// A token of ann's that names the key.
    fn token(&self, id: Option<&str>) -> String {
        self.token_from(id, &Value::Null)
    }

    /// A token of an admin's that names the key.
    fn admins_token(&self, id: &str) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(id.to_owned());
        let claims = json!({"sub": "ann", "role": "admin", "exp": in_seconds(3600)});
        encode(&header, &claims, &self.private).expect("a token")
    }

    /// The same that names an issuer, unless that is null.
    fn token_from(&self, id: Option<&str>, issuer: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = id.map(str::to_owned);
        let mut claims = json!({"sub": "ann", "exp": in_seconds(3600)});
        if !issuer.is_null() {
            claims["iss"] = issuer.clone();
        }
        encode(&header, &claims, &self.private).expect("a token")
    }
}

fn path(file: &std::path::Path) -> &str {
    file.to_str().expect("a path")
}

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output();
    let output = output.expect("openssl is installed");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Serves a key set.
#[derive(Clone)]
struct Issuer {
    port: u16,
    /// The whole answer.
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let issuer = Self {
            port,
            answer: Arc::default(),
            asked: Arc::default(),
        };
        issuer.serve(keys);
        let served = issuer.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let served = served.clone();
                tokio::spawn(async move {
                    read_head(&mut stream).await;
                    served.asked.fetch_add(1, Ordering::Relaxed);
                    let answer = served.answer.lock().expect("a lock").clone();
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        issuer
    }

    fn say(&self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        *self.answer.lock().expect("a lock") = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}"
        );
    }

    fn serve(&self, keys: &[Value]) {
        self.say("200 OK", "", &json!({ "keys": keys }).to_string());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/keys", self.port)
    }

    /// A hub that believes it, once it has its keys.
    async fn hub(&self) -> Hub {
        let hub = hub(&[
            ("JWKS_URL", &self.url()),
            ("AUTH_REQUIRED", "true"),
            // Nobody is there: who is let in is answered 502.
            ("UPSTREAMS", r#"{"x":["http://127.0.0.1:1"]}"#),
        ])
        .await;
        eventually("the keys are there", async || {
            (self.asked() > 0 && status(&hub, "x.y.z").await == 401).then_some(())
        })
        .await;
        hub
    }
}

/// With which status a handshake is answered that shows this token: 101 when it is let in.
async fn status(hub: &Hub, token: &str) -> u16 {
    let answer = handshake(hub, &format!("/ws/connect?token={token}"), &[]).await;
    answer.map_or_else(|refused| refused.status, |_| 101)
}

#[tokio::test]
async fn tokens_of_every_kind_of_key_open() {
    let pairs = [
        Algorithm::EdDSA,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::RS256,
        Algorithm::PS512,
    ]
    .map(Pair::new);
    let keys: Vec<Value> = pairs
        .iter()
        .enumerate()
        .map(|(number, pair)| pair.jwk(&number.to_string()))
        .collect();
    let issuer = Issuer::start(&keys).await;
    let hub = issuer.hub().await;
    for (number, pair) in pairs.iter().enumerate() {
        for id in [Some(number.to_string()), None] {
            let token = pair.token(id.as_deref());
            let mut socket = Socket::open_as(&hub, &token).await;
            assert_eq!(socket.connected["user_id"], "ann", "{:?}", pair.algorithm);
            let refreshed = socket
                .ask(&json!({"type": "refresh", "token": token}))
                .await;
            assert_eq!(refreshed["type"], "refreshed", "{refreshed}");
        }
        // The name of another key does not help.
        let other = ((number + 1) % pairs.len()).to_string();
        assert_eq!(status(&hub, &pair.token(Some(&other))).await, 401);
    }
    // Users of this hub's own have tokens as well, although it was given no secret.
    let ann = hub.user("ann").await;
    assert_eq!(status(&hub, &ann.token).await, 101);
}

#[tokio::test]
async fn a_new_key_is_known_with_its_first_token_and_an_old_one_is_forgotten() {
    let (old, new) = (Pair::new(Algorithm::EdDSA), Pair::new(Algorithm::EdDSA));
    let issuer = Issuer::start(&[old.jwk("old")]).await;
    let hub = issuer.hub().await;
    assert_eq!(status(&hub, &old.token(Some("old"))).await, 101);
    let token = old.token(Some("old"));
    let proxied = async || hub.get(&format!("/sse/x/?token={token}")).await.status;
    assert_eq!(proxied().await, 502);
    issuer.serve(&[new.jwk("new")]);
    assert_eq!(status(&hub, &new.token(Some("new"))).await, 101);
    assert_eq!(status(&hub, &old.token(Some("old"))).await, 401);
    assert_eq!(proxied().await, 401);
}

/// The doors of back ends and of operators learn a new key by themselves, too: nobody has connected with it before.
#[tokio::test]
async fn a_new_key_is_known_at_every_door() {
    let issuer = Issuer::start(&[]).await;
    let first = Pair::new(Algorithm::EdDSA);
    issuer.serve(&[first.jwk("first")]);
    let hub = issuer.hub().await;
    assert_eq!(status(&hub, &first.token(Some("first"))).await, 101);
    let json = ("content-type", "application/json");
    let form = ("content-type", "application/x-www-form-urlencoded");
    for (number, door) in ["publish", "stats", "cookie", "link", "form"]
        .into_iter()
        .enumerate()
    {
        // The issuer changes its key each time.
        let (pair, id) = (Pair::new(Algorithm::EdDSA), format!("key-{number}"));
        issuer.serve(&[pair.jwk(&id)]);
        let token = pair.admins_token(&id);
        let (bearer, cookie) = (format!("Bearer {token}"), format!("fanfare_admin={token}"));
        let bearer = ("authorization", bearer.as_str());
        let answer = match door {
            "publish" => {
                let body = r#"{"channel":"news","data":1}"#;
                hub.request("POST", "/hub/publish", &[bearer, json], body)
                    .await
            }
            "stats" => hub.request("GET", "/admin/stats", &[bearer], "").await,
            "cookie" => {
                let cookie = [("cookie", cookie.as_str())];
                hub.request("GET", "/admin/stats", &cookie, "").await
            }
            "link" => hub.get(&format!("/admin?token={token}")).await,
            _ => {
                let body = format!("token={token}");
                hub.request("POST", "/admin", &[form], &body).await
            }
        };
        assert!(
            matches!(answer.status, 200 | 303),
            "{door}: {}",
            answer.status
        );
    }
}

#[tokio::test]
async fn whoever_invents_names_of_keys_does_not_make_the_hub_ask_for_ever() {
    let pair = Pair::new(Algorithm::EdDSA);
    let issuer = Issuer::start(&[pair.jwk("known")]).await;
    let hub = issuer.hub().await;
    for number in 0..60 {
        let token = pair.token(Some(&format!("invented-{number}")));
        assert_eq!(status(&hub, &token).await, 401);
    }
    assert!(issuer.asked() < 10, "{} times", issuer.asked());
    assert_eq!(status(&hub, &pair.token(Some("known"))).await, 101);
}

#[tokio::test]
async fn until_the_keys_are_there_nobody_is_called_wrong() {
    let pair = Pair::new(Algorithm::EdDSA);
    let (token, keys) = (pair.token(Some("key")), [pair.jwk("key")]);
    let elsewhere = Issuer::start(&keys).await;
    let issuer = Issuer::start(&keys).await;
    // A redirect is not followed, wherever it leads.
    let location = format!("location: {}\r\n", elsewhere.url());
    issuer.say("302 Found", &location, "");
    let hub = hub(&[("JWKS_URL", &issuer.url()), ("AUTH_REQUIRED", "true")]).await;
    assert_eq!(status(&hub, &token).await, 503);
    assert_eq!(elsewhere.asked(), 0);
    issuer.serve(&keys);
    eventually("the keys come", async || {
        (status(&hub, &token).await == 101).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_bad_answer_keeps_the_old_keys() {
    let pair = Pair::new(Algorithm::EdDSA);
    let (known, unknown) = (pair.token(Some("known")), pair.token(Some("unknown")));
    let issuer = Issuer::start(&[pair.jwk("known")]).await;
    let hub = issuer.hub().await;
    let set = json!({"keys": [pair.jwk("unknown")]}).to_string();
    // A good set but for its size.
    let large = format!("{set}{}", " ".repeat(300 * 1024));
    for (answer, body) in [
        ("500 Internal Server Error", set.as_str()),
        ("200 OK", "<html>"),
        ("200 OK", r#"{"keys":[]}"#),
        ("200 OK", &large),
    ] {
        issuer.say(answer, "", body);
        let asked = issuer.asked();
        assert_eq!(status(&hub, &unknown).await, 401, "{answer}");
        assert!(issuer.asked() > asked, "it was asked");
        assert_eq!(status(&hub, &known).await, 101, "{answer}");
    }
}

/// What an issuer's public key is must not become a secret that anybody knows.
#[tokio::test]
async fn a_public_key_is_no_secret() {
    let pair = Pair::new(Algorithm::RS256);
    let issuer = Issuer::start(&[pair.jwk("key")]).await;
    let hub = hub(&[
        ("JWKS_URL", &issuer.url()),
        ("JWT_PUBLIC_KEY", &pair.public),
        ("JWT_SECRET", SECRET),
        ("AUTH_REQUIRED", "true"),
    ])
    .await;
    let modulus = pair.jwk("key")["n"].as_str().expect("a text").to_owned();
    for known in [pair.public.as_str(), pair.public.trim(), &modulus, "key"] {
        let forged = signed(Algorithm::HS256, known, json!({"sub": "ann"}));
        assert_eq!(status(&hub, &forged).await, 401);
    }
    assert_eq!(status(&hub, &pair.token(None)).await, 101);
    assert_eq!(status(&hub, &token_of("ann")).await, 101);
}

#[tokio::test]
async fn public_keys_stand_in_a_variable_several_and_on_one_line() {
    let pairs = [Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256].map(Pair::new);
    let stranger = Pair::new(Algorithm::EdDSA);
    let text: String = pairs.iter().map(|pair| pair.public.as_str()).collect();
    for text in [text.clone(), text.replace('\n', "\\n")] {
        let hub = hub(&[("JWT_PUBLIC_KEY", &text), ("AUTH_REQUIRED", "true")]).await;
        for pair in &pairs {
            assert_eq!(status(&hub, &pair.token(Some("any"))).await, 101);
        }
        assert_eq!(status(&hub, &stranger.token(None)).await, 401);
    }
}

#[tokio::test]
async fn an_old_secret_is_good_until_its_day() {
    let old = "an-older-secret-of-at-least-32-bytes";
    let token = signed(Algorithm::HS256, old, json!({"sub": "ann"}));
    for (until, expected) in [("2999-12-31", 101), ("2020-01-01T00:00:00Z", 401)] {
        let hub = hub(&[
            ("JWT_SECRET", SECRET),
            ("JWT_PREVIOUS_SECRET", old),
            ("JWT_PREVIOUS_SECRET_UNTIL", until),
            ("AUTH_REQUIRED", "true"),
        ])
        .await;
        assert_eq!(status(&hub, &token).await, expected, "{until}");
        assert_eq!(status(&hub, &token_of("ann")).await, 101);
    }
}

#[tokio::test]
async fn each_issuer_speaks_for_itself_only() {
    let (a, b) = (Pair::new(Algorithm::EdDSA), Pair::new(Algorithm::EdDSA));
    // Both call their key by the same name.
    let issuers = [
        Issuer::start(&[a.jwk("key")]).await,
        Issuer::start(&[b.jwk("key")]).await,
    ];
    let urls = format!(
        "https://a.example {}, b {}",
        issuers[0].url(),
        issuers[1].url()
    );
    let variables = [
        ("JWKS_URL", urls.as_str()),
        ("JWT_SECRET", SECRET),
        ("JWT_ISSUER", "us"),
        ("AUTH_REQUIRED", "true"),
    ];
    let hub = hub(&variables).await;
    let (of_a, of_b) = (json!("https://a.example"), json!("b"));
    let ours = signed(Algorithm::HS256, SECRET, json!({"sub": "ann", "iss": "us"}));
    eventually("all keys are there", async || {
        let is_a = status(&hub, &a.token_from(Some("key"), &of_a)).await == 101;
        let is_b = status(&hub, &b.token_from(Some("key"), &of_b)).await == 101;
        (is_a && is_b).then_some(())
    })
    .await;
    assert_eq!(status(&hub, &ours).await, 101);
    assert_eq!(status(&hub, &a.token_from(None, &of_a)).await, 101);
    for (pair, issuer) in [
        (&a, &of_b),
        (&b, &of_a),
        (&a, &json!("us")),
        (&a, &json!("c")),
        (&a, &json!(7)),
        (&a, &json!(["b", "https://a.example"])),
        (&a, &Value::Null),
    ] {
        for id in [Some("key"), None] {
            let token = pair.token_from(id, issuer);
            assert_eq!(status(&hub, &token).await, 401, "{issuer}");
        }
    }
    // Our secret signs for us, and for nobody else.
    let forged = signed(Algorithm::HS256, SECRET, json!({"sub": "ann", "iss": "b"}));
    assert_eq!(status(&hub, &forged).await, 401);
    // A new key of one is asked for at that one.
    let new = Pair::new(Algorithm::EdDSA);
    let asked = issuers[0].asked();
    issuers[1].serve(&[new.jwk("new")]);
    assert_eq!(status(&hub, &new.token_from(Some("new"), &of_b)).await, 101);
    assert_eq!(status(&hub, &b.token_from(Some("key"), &of_b)).await, 401);
    assert_eq!(issuers[0].asked(), asked);
}

#[tokio::test]
async fn an_issuer_that_is_away_is_no_other_ones_matter() {
    let (a, b) = (Pair::new(Algorithm::EdDSA), Pair::new(Algorithm::ES256));
    let (here, away) = (
        Issuer::start(&[a.jwk("key")]).await,
        Issuer::start(&[]).await,
    );
    away.say("500 Internal Server Error", "", "");
    let urls = format!("a {}, b {}", here.url(), away.url());
    let hub = hub(&[("JWKS_URL", &urls), ("AUTH_REQUIRED", "true")]).await;
    eventually("the keys of one", async || {
        (status(&hub, &a.token_from(None, &json!("a"))).await == 101).then_some(())
    })
    .await;
    assert_eq!(status(&hub, &b.token_from(None, &json!("b"))).await, 503);
    assert_eq!(status(&hub, &a.token_from(None, &json!("a"))).await, 101);
    assert_eq!(status(&hub, &b.token_from(None, &json!("c"))).await, 401);
}

#[tokio::test]
async fn an_issuer_is_believed_over_tls_that_the_machine_trusts() {
    let pair = Pair::new(Algorithm::EdDSA);
    let issuer = Issuer::start(&[pair.jwk("key")]).await;
    let certificate = shims::Pair::make();
    let door = shims::server_side(format!("127.0.0.1:{}", issuer.port), &certificate).await;
    let url = format!("{door}/keys");
    let token = pair.token(Some("key"));
    let stranger = hub(&[("JWKS_URL", &url), ("AUTH_REQUIRED", "true")]).await;
    assert_eq!(status(&stranger, &token).await, 503);
    assert_eq!(issuer.asked(), 0, "it is not even asked");
    let trust = shims::text(&certificate.certificate);
    let variables = [
        ("JWKS_URL", url.as_str()),
        ("AUTH_REQUIRED", "true"),
        ("SSL_CERT_FILE", trust),
    ];
    let hub = hub(&variables).await;
    eventually("the keys are there", async || {
        (status(&hub, &token).await == 101).then_some(())
    })
    .await;
}
