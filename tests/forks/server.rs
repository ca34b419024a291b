//! A plain connection to the server, for what no hub does: copying and losing keys, and another replication id.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use crate::redis_server::RedisServer;

pub(crate) struct Server {
    stream: BufReader<TcpStream>,
}

impl Server {
    pub(crate) fn connect(server: &RedisServer) -> Self {
        let address = server.url();
        let address = address.trim_start_matches("redis://");
        Self {
            stream: BufReader::new(TcpStream::connect(address).expect("the server")),
        }
    }

    /// Asks something whose answer is one line, or text.
    pub(crate) fn ask(&mut self, words: &[&str]) -> String {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        let stream = self.stream.get_mut();
        stream.write_all(command.as_bytes()).expect("sent");
        let line = self.line();
        assert!(!line.starts_with('-'), "{words:?}: {line}");
        if let Some(length) = line.strip_prefix('$') {
            let mut text = vec![0; length.parse::<usize>().expect("a length") + 2];
            self.stream.read_exact(&mut text).expect("an answer");
            return String::from_utf8_lossy(&text).into_owned();
        }
        line
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    /// Does to the replication id what a restart or a promotion does. Answers the new one.
    pub(crate) fn change_id(&mut self) -> String {
        let id = |info: String| {
            let mut lines = info.lines();
            let id = lines.find_map(|line| line.strip_prefix("master_replid:"));
            id.expect("an id").to_owned()
        };
        let old = id(self.ask(&["INFO", "replication"]));
        self.ask(&["DEBUG", "CHANGE-REPL-ID"]);
        let new = id(self.ask(&["INFO", "replication"]));
        assert_ne!(new, old);
        new
    }
}
