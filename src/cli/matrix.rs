//! `matrix`: what a homeserver needs to know of this daemon.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use stellwerk::config::Config;
use stellwerk::matrix::registration::Registration;

use super::Failure;

/// What Synapse needs, with names that have to be replaced.
const HOMESERVER: &str = include_str!("../../config/homeserver.yaml");

/// The host in it.
const EXAMPLE: &str = "rtc.example.org";

/// `matrix ...`.
#[derive(Debug, Subcommand)]
pub enum Matrix {
    /// Print a new registration as application service, and to standard error what else the
    /// homeserver needs. Each call draws new tokens: keep the file, both sides read it.
    Registration(Request),
}

/// `matrix registration`.
#[derive(Debug, Args)]
pub struct Request {
    /// The configuration file of the daemon.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address at which the homeserver reaches the daemon, otherwise the first of http.listen.
    #[arg(long, value_name = "URL", value_parser = web_address)]
    proxy_url: Option<String>,
}

impl Matrix {
    /// Prints.
    pub fn run(&self) -> Result<(), Failure> {
        let Self::Registration(request) = self;
        request.run()
    }
}

impl Request {
    fn run(&self) -> Result<(), Failure> {
        let sources = super::config::sources(false, self.config.as_deref());
        let config = Config::load(&sources)?.config;
        let mut servers = config.matrix.homeservers.keys();
        let (Some(server), None) = (servers.next(), servers.next()) else {
            let text = "[matrix] homeservers: a registration belongs to one homeserver; name \
                exactly one, as in { \"example.org\" = \"http://127.0.0.1:8008\" }, in the file \
                given with --config or by STELLWERK_MATRIX_HOMESERVERS";
            return Err(Failure::Usage(text.to_owned()));
        };
        let proxy_url = match (&self.proxy_url, config.http.listen.first()) {
            (Some(url), _) => url.clone(),
            (None, Some(listen)) => format!("http://{}", super::from_this_host(*listen)),
            (None, None) => String::new(),
        };
        let text = Registration::generate(server, &proxy_url).map_err(Failure::Run)?;
        super::print(&text);
        let url = config.matrix.url.as_ref().map_or("", |url| url.as_str());
        eprint!("{}", homeserver(url));
        Ok(())
    }
}

/// What Synapse needs when clients reach the daemon at `url`, a WebSocket's.
fn homeserver(url: &str) -> String {
    let service = super::web_url(url);
    HOMESERVER
        .replace(&format!("https://{EXAMPLE}"), service.trim_end_matches('/'))
        .replace(&format!("wss://{EXAMPLE}"), url)
}

/// An address for HTTP, as it is.
pub fn web_address(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    let uri: Option<hyper::Uri> = text.parse().ok().filter(|_| text.chars().all(plain));
    match uri.as_ref().and_then(hyper::Uri::scheme_str) {
        Some("http" | "https") => Ok(text.to_owned()),
        _ => Err("write \"http://127.0.0.1:7880\"".to_owned()),
    }
}
