//! `doctor`: looks at a running daemon, its proxy and its homeserver as clients see them, and says
//! what is wrong, why, and what to do.
//!
//! ```text
//! scene (configuration, addresses) --> checks, each with a visit or a call --> findings --> report
//! ```
//!
//! Each file is one place where operators go wrong: `host`, `certificate`, `proxy`,
//! `discovery`, `homeserver`; `call` tries the whole. What is not here: anything that changes a
//! thing.

mod call;
mod certificate;
mod discovery;
mod finding;
mod homeserver;
mod host;
mod peer;
mod proxy;
mod scene;
mod visit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use stellwerk::config::{Config, ServerName};

use super::Failure;
use finding::Finding;
use scene::Scene;

/// Nagios: it can't be said.
const UNKNOWN: u8 = 3;

/// All of it, which the sum of what single questions may take stays below unless everything is slow
/// at once.
const TOTAL_TIME: Duration = Duration::from_secs(75);

/// A token in a file; a longer file is the wrong one.
const TOKEN_BYTES: usize = 4096;

/// `doctor ...`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 all is well, 1 there are warnings, 2 there are failures, \
    3 nothing could be examined, for example because the configuration is wrong (so far as Nagios \
    has it); 64 the command line is wrong. What is skipped doesn't count. \
    docs/doctor.md explains each finding."
)]
pub struct Doctor {
    /// The configuration file of the daemon. STELLWERK_* variables count, as they do for `serve`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a JSON list of objects with id, status, cause and remedy. Status is "ok", "skipped",
    /// "warning" or "failure".
    #[arg(long)]
    json: bool,
    /// The Matrix server whose clients are looked after, otherwise the first of
    /// matrix.homeservers.
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    server_name: Option<String>,
    /// A file with an access token of a user of it, to ask the homeserver what it tells its
    /// users.
    #[arg(long, value_name = "FILE")]
    user_token_file: Option<PathBuf>,
    /// The address clients get their tokens at, if it isn't matrix.url with https.
    #[arg(long, value_name = "URL", value_parser = super::matrix::web_address)]
    service_url: Option<String>,
    /// Don't try a call of two in a room of its own, which webhooks would tell of.
    #[arg(long)]
    no_call: bool,
}

impl Doctor {
    /// Examines, prints, and gives the exit code.
    pub fn run(&self) -> ExitCode {
        let report = self.examine().map(|findings| {
            let text = match self.json {
                true => finding::json(&findings),
                false => finding::text(&findings),
            };
            super::print(&text);
            finding::exit_code(&findings)
        });
        ExitCode::from(report.unwrap_or_else(|failure| {
            eprintln!("{failure}");
            UNKNOWN
        }))
    }

    fn examine(&self) -> Result<Vec<Finding>, Failure> {
        let sources = super::config::sources(false, self.config.as_deref());
        let loaded = Config::load(&sources)?;
        let registration = loaded.config.matrix.registration.as_deref();
        let mut findings = host::configuration(&loaded.concerns, registration);
        let token = self.user_token_file.as_deref().map(read_token);
        let mut scene = Scene::new(
            loaded.config,
            self.service_url.clone(),
            self.server_name.clone(),
            token.transpose()?,
        )?;
        scene.with_call = !self.no_call;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| Failure::Run(error.to_string()))?;
        let examined = async { tokio::time::timeout(TOTAL_TIME, examine(&scene)).await };
        let examined = runtime.block_on(examined);
        // A name that DNS is still looking for doesn't hold anyone up.
        runtime.shutdown_background();
        let late = |_| Failure::Run(format!("not done after {} s", TOTAL_TIME.as_secs()));
        findings.extend(examined.map_err(late)?);
        Ok(findings)
    }
}

/// Every check, in the order of the ids.
async fn examine(scene: &Scene) -> Vec<Finding> {
    let mut findings = vec![
        host::keys(&scene.config.keys),
        host::receive_buffer(&scene.config),
    ];
    let versions = homeserver::versions(scene).await;
    let (listener, certificate, proxy, discovery, homeserver) = tokio::join!(
        host::listener(scene),
        certificate::check(scene),
        proxy::check(scene),
        discovery::check(scene, &versions),
        homeserver::check(scene, &versions),
    );
    findings.extend([listener, certificate]);
    findings.extend(proxy);
    findings.extend(discovery);
    findings.extend(homeserver);
    // By itself: it takes the time.
    findings.extend(match scene.with_call {
        true => call::check(scene).await,
        false => call::skipped("--no-call was given", "Leave it out."),
    });
    findings
}

fn server_name(text: &str) -> Result<String, String> {
    let name = ServerName::new(text).filter(|name| name.as_str() != ServerName::ALL);
    let name = name.ok_or("write what stands behind the colon of its users, \"example.org\"")?;
    Ok(name.as_str().to_owned())
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let failed = |why: &str| Failure::Usage(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error.to_string()))?;
    let token = text.trim();
    let plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    match plain && !token.is_empty() && token.len() <= TOKEN_BYTES {
        true => Ok(token.to_owned()),
        false => Err(failed("there is no access token in it, and nothing else")),
    }
}
