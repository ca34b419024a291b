//! Publish requests as templates: built once per channel, patched in place for each publication. So a burst of single
//! publishes costs the generator little more than its system calls.

use std::net::SocketAddrV4;

use anyhow::Result;

use crate::http;
use crate::payload::{self, Stamp};

/// Makes the requests of one publisher.
pub(crate) struct Requests {
    /// For each channel a request of one publication and where its payload begins.
    single: Vec<(Vec<u8>, usize)>,
    /// For each channel an element of a batch and where its payload begins.
    element: Vec<(Vec<u8>, usize)>,
    target: SocketAddrV4,
    key: Option<String>,
}

impl Requests {
    /// Templates for these channels, with payloads of exactly `bytes` bytes.
    pub(crate) fn new(
        target: SocketAddrV4,
        key: Option<String>,
        channels: &[String],
        bytes: usize,
    ) -> Result<Self> {
        let payload = payload::template(bytes)?;
        let (mut single, mut element) = (Vec::new(), Vec::new());
        for channel in channels {
            let mut body = format!(r#"{{"channel":"{channel}","data":"#).into_bytes();
            let at = body.len();
            body.extend_from_slice(&payload);
            body.push(b'}');
            let mut request =
                http::post_head(target, "/hub/publish", key.as_deref(), body.len()).into_bytes();
            let head = request.len();
            request.extend_from_slice(&body);
            single.push((request, head + at));
            element.push((body, at));
        }
        Ok(Requests {
            single,
            element,
            target,
            key,
        })
    }

    /// How many channels there are.
    pub(crate) fn channels(&self) -> u64 {
        self.single.len() as u64
    }

    /// Appends a request of one publication to `out`; its number chooses the channel.
    pub(crate) fn put_single(&mut self, out: &mut Vec<u8>, stamp: Stamp) {
        let channel = (stamp.number % self.channels()) as usize;
        let (request, at) = &mut self.single[channel];
        payload::patch(&mut request[*at..], stamp);
        out.extend_from_slice(request);
    }

    /// Appends one `/hub/batch` request with these publications to `out`.
    pub(crate) fn put_batch(&mut self, out: &mut Vec<u8>, stamps: impl Iterator<Item = Stamp>) {
        let mut body = br#"{"publications":["#.to_vec();
        for (index, stamp) in stamps.enumerate() {
            let channel = (stamp.number % self.channels()) as usize;
            let (element, at) = &mut self.element[channel];
            payload::patch(&mut element[*at..], stamp);
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(element);
        }
        body.extend_from_slice(b"]}");
        out.extend_from_slice(
            http::post_head(self.target, "/hub/batch", self.key.as_deref(), body.len()).as_bytes(),
        );
        out.extend_from_slice(&body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::StampReader;
    use crate::plan;

    fn requests() -> Requests {
        let target = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 18080);
        Requests::new(target, None, &plan::channels("a", 2), 128).expect("128 is enough")
    }

    fn body(request: &[u8]) -> serde_json::Value {
        let text = std::str::from_utf8(request).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.contains(&format!("Content-Length: {}", body.len())),
            "{head}"
        );
        serde_json::from_str(body).expect("valid JSON")
    }

    #[test]
    fn a_single_publish_names_its_channel_and_stamp() {
        let mut out = Vec::new();
        requests().put_single(&mut out, Stamp { at: 5, number: 3 });
        assert_eq!(body(&out)["channel"], "a1");
        assert_eq!(
            StampReader::default().read(&out),
            Some(Stamp { at: 5, number: 3 })
        );
    }

    #[test]
    fn a_batch_goes_round_the_channels() {
        let mut out = Vec::new();
        requests().put_batch(&mut out, (0..3).map(|number| Stamp { at: 5, number }));
        let body = body(&out);
        let channels: Vec<&str> = body["publications"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|p| p["channel"].as_str())
            .collect();
        assert_eq!(channels, ["a0", "a1", "a0"]);
    }
}
