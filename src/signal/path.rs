//! Paths as clients and proxies write them, made those that routes know.

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

use crate::config::PathPrefix;

/// Runs of slashes become one: clients append `/rtc` to whatever path they were configured with.
pub(super) fn collapse_slashes(uri: &mut Uri) {
    if !uri.path().contains("//") {
        return;
    }
    let mut path = String::with_capacity(uri.path().len());
    for c in uri.path().chars() {
        if c != '/' || !path.ends_with('/') {
            path.push(c);
        }
    }
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    replace(uri, path);
}

/// Takes away the longest of `prefixes` that the path begins with.
pub(super) fn strip_prefix(uri: &mut Uri, prefixes: &[PathPrefix]) {
    let rests = prefixes
        .iter()
        .filter_map(|prefix| prefix.strip(uri.path()));
    let Some(rest) = rests.min_by_key(|rest| rest.len()) else {
        return;
    };
    let path = match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    replace(uri, path);
}

/// A part of a valid URI stays valid without some of its parts; if not, the path is unknown.
fn replace(uri: &mut Uri, path: String) {
    if let Ok(path) = PathAndQuery::try_from(path) {
        *uri = Uri::from(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn slashes_collapse_and_the_query_stays() {
        let cases = [
            ("//rtc/v1?a=//b", "/rtc/v1?a=//b"),
            ("/sfu///rtc//v1", "/sfu/rtc/v1"),
            ("/rtc/v1", "/rtc/v1"),
            ("//", "/"),
        ];
        for (given, wanted) in cases {
            let path = PathAndQuery::from_static(given);
            let mut uri = Uri::from(path);
            collapse_slashes(&mut uri);
            assert_eq!(uri.to_string(), wanted);
        }
    }

    #[test]
    fn prefixes_go_and_the_query_stays() {
        let config = Config::load(&Sources::default()).unwrap().config;
        let cases = [
            ("/livekit/sfu/rtc/v1?a=/b", "/rtc/v1?a=/b"),
            ("/livekit/jwt/sfu/get", "/sfu/get"),
            ("/livekit/sfu", "/livekit/sfu"),
            ("/rtc/livekit/sfu/v1", "/rtc/livekit/sfu/v1"),
        ];
        for (given, wanted) in cases {
            let mut uri = Uri::from_static(given);
            strip_prefix(&mut uri, &config.http.prefixes);
            assert_eq!(uri.to_string(), wanted);
        }
    }
}
