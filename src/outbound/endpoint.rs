//! Where to call, as the operator says it.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// A URL of `http` or `https`. Its text without what may be secret, user names and queries, is what logs show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Uri);

/// The text is no such URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{ENDPOINT_RULE}")]
pub struct EndpointError;

/// What the text must be.
pub const ENDPOINT_RULE: &str =
    "http://host[:port]/path or https://host[:port]/path, without a user and a fragment";

impl Endpoint {
    /// The URL.
    pub const fn uri(&self) -> &Uri {
        &self.0
    }

    /// Whether it is `https`.
    pub fn is_secure(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.contains('#') {
            return Err(EndpointError);
        }
        let uri: Uri = text.parse().map_err(|_| EndpointError)?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        match is_http && has_host && !authority.contains('@') {
            true => Ok(Self(uri)),
            false => Err(EndpointError),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = (self.0.scheme_str(), self.0.authority());
        let authority = authority.map_or("", |authority| authority.as_str());
        write!(
            f,
            "{}://{authority}{}",
            scheme.unwrap_or_default(),
            self.0.path()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_whole_url_of_http() {
        for (text, shown) in [
            (
                "http://127.0.0.1:9000/hook?key=1",
                "http://127.0.0.1:9000/hook",
            ),
            ("https://example.com", "https://example.com/"),
            ("https://[::1]:8443/a/b", "https://[::1]:8443/a/b"),
        ] {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.is_secure(), text.starts_with("https"));
        }
        for text in [
            "",
            "example.com/hook",
            "/hook",
            "ftp://example.com/",
            "http://",
            "http:///hook",
            "http://ann:secret@example.com/",
            "http://example.com/#here",
            "http://exa mple.com/",
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError), "{text}");
        }
    }
}
