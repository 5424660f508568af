//! `check-config` and `config show`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use stellwerk::config::{Config as Values, Problem, SAMPLE, Sources};

use super::Failure;

/// `check-config FILE`.
#[derive(Debug, Args)]
pub struct Check {
    /// The file to check. STELLWERK_* variables count, as they do for `serve`.
    file: PathBuf,
}

/// `config ...`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Print every parameter with its description and default, ready to be a file.
    Show(Show),
}

/// `config show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Print the values in force instead, and where each comes from. Secrets are masked.
    #[arg(long)]
    effective: bool,
    /// The configuration file.
    #[arg(long, value_name = "FILE", requires = "effective")]
    config: Option<PathBuf>,
    /// Take the defaults for development.
    #[arg(long, requires = "effective")]
    dev: bool,
    #[command(flatten)]
    overrides: super::serve::Overrides,
}

impl Check {
    /// Reads the file and everything it names.
    pub fn run(&self) -> Result<(), Failure> {
        let sources = sources(false, Some(&self.file));
        let loaded = Values::load(&sources)?;
        loaded.require_keys()?;
        if !loaded.concerns.is_empty() {
            let lines: Vec<_> = loaded.concerns.iter().map(Problem::to_string).collect();
            return Err(Failure::Usage(lines.join("\n")));
        }
        super::print(&format!("{} is right\n", self.file.display()));
        Ok(())
    }
}

impl Config {
    /// Prints.
    pub fn run(&self) -> Result<(), Failure> {
        let Self::Show(show) = self;
        if !show.effective {
            super::print(SAMPLE);
            return Ok(());
        }
        let mut sources = sources(show.dev, show.config.as_deref());
        sources.overrides = show.overrides.to_sources();
        super::print(&Values::load(&sources)?.show());
        Ok(())
    }
}

/// The layers of this process, without a command line.
pub fn sources(dev: bool, file: Option<&Path>) -> Sources<'_> {
    Sources {
        dev,
        file,
        env: Sources::process_env(),
        ..Sources::default()
    }
}
