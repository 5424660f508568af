//! What a client says of itself, and the peculiarities that follow from it.
//!
//! Browsers leave the saying to the `User-Agent` of the request; SDKs fill in the fields.

use livekit_protocol as proto;

use crate::media::message::{ClientInfo, Quirks};

/// Capabilities taken from a client; the protocol knows half a dozen. More are ignored.
const CAPABILITIES_MAX: usize = 32;

/// Reads the fields of the join, and for what they leave open the header.
pub(super) fn client(info: Option<proto::ClientInfo>, user_agent: &str) -> ClientInfo {
    let mut info = info.unwrap_or_default();
    info.capabilities.truncate(CAPABILITIES_MAX);
    ClientInfo {
        protocol: info.protocol,
        client_protocol: info.client_protocol,
        quirks: quirks(&info.browser, &info.os, user_agent),
        capabilities: info.capabilities,
    }
}

fn quirks(browser: &str, os: &str, user_agent: &str) -> Quirks {
    let says = |field: &str, word: &str| {
        let text = if field.is_empty() { user_agent } else { field };
        text.to_ascii_lowercase().contains(word)
    };
    let firefox = says(browser, "firefox");
    // Android says Linux too.
    let quirky = firefox && (says(os, "linux") || says(os, "android"));
    Quirks {
        ignores_codec_order: quirky,
        no_h264: quirky,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    const CHROME: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
        Chrome/150.0.0.0 Safari/537.36";
    const MAC: &str =
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 Firefox/140.0";

    #[test]
    fn firefox_is_told_by_fields_or_header() {
        let quirky = |browser: &str, os: &str, agent: &str| {
            let info = proto::ClientInfo {
                browser: browser.to_owned(),
                os: os.to_owned(),
                ..Default::default()
            };
            client(Some(info), agent).quirks != Quirks::default()
        };
        assert!(quirky("", "", FIREFOX));
        assert!(quirky("Firefox", "Android", ""));
        assert!(!quirky("", "", MAC));
        assert!(!quirky("", "", CHROME));
        assert!(!quirky("Chrome", "", FIREFOX));
        assert!(!quirky("", "", ""));
    }

    #[test]
    fn capabilities_are_bounded() {
        let info = proto::ClientInfo {
            capabilities: vec![1; 1000],
            ..Default::default()
        };
        assert_eq!(client(Some(info), "").capabilities.len(), CAPABILITIES_MAX);
    }
}
