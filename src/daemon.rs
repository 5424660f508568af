//! The daemon (this clone's place-holder, to be replaced by the real one).

use crate::config::Config;

/// Why the daemon could not run.
pub type Error = std::io::Error;

/// Runs until a signal ends it.
pub fn run(config: Config) -> Result<(), Error> {
    tracing::info!(workers = config.media.worker_count(), "ready");
    Ok(())
}
