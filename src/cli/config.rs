//! `check-config` and `config show`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use stellwerk::config::{Config as Values, Matrix, Problem, SAMPLE, Sources};
use stellwerk::matrix::homeservers::Homeservers;
use stellwerk::matrix::registration::{LEAVES_EXPECTED, Registration};

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
        let mut concerns: Vec<_> = loaded.concerns.iter().map(Problem::to_string).collect();
        concerns.extend(concerns_of_files(&loaded.config.matrix));
        if !concerns.is_empty() {
            return Err(Failure::Usage(concerns.join("\n")));
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

/// What would be a warning or an error at the start, with the files that `[matrix]` names.
fn concerns_of_files(matrix: &Matrix) -> Vec<String> {
    let mut concerns = Vec::new();
    if let Some(path) = &matrix.registration {
        match Registration::read(path) {
            Ok(read) => concerns.extend(
                read.concerns
                    .iter()
                    .map(|concern| format!("{}: {concern}", path.display())),
            ),
            Err(problem) => concerns.push(problem),
        }
        if matrix.leaves.is_none() {
            concerns.push(LEAVES_EXPECTED.to_owned());
        }
    }
    if let Err(error) = Homeservers::new(matrix) {
        concerns.push(format!(
            "cannot check certificates of homeservers: {error}; see matrix.extra_ca"
        ));
    }
    let folder = matrix.leaves.as_deref().and_then(Path::parent);
    // The parent of a bare name is empty, and is where the daemon is started.
    if let Some(folder) = folder.filter(|it| !it.as_os_str().is_empty() && !it.is_dir()) {
        concerns.push(format!(
            "matrix.leaves: there is no folder {0}; make it, for the daemon's user to write to: \
             `install -d -m 700 {0}`",
            folder.display()
        ));
    }
    concerns
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
