//! `lab`: how well pictures adapt to networks, in virtual time.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use stellwerk::lab::{self, SCENARIOS, Scenario, Subject};

use super::Failure;

/// Most seeds of one call.
const SEEDS_MAX: u64 = 1000;

/// `lab ...`.
#[derive(Debug, Args)]
pub struct Lab {
    /// Try with each of these seeds; another one is other luck.
    #[arg(long, value_name = "FROM..TO", default_value = "1..5", value_parser = seeds)]
    seeds: Seeds,
    /// Try this scenario only ("04"); may be given several times.
    #[arg(long, value_name = "ID", value_parser = scenario)]
    scenario: Vec<&'static Scenario>,
    /// Try others on the same networks, too: "remb" (a viewer that only says its rate), "stock"
    /// (str0m as it is), "unpadded" (that without padding).
    #[arg(long, value_name = "NAME", value_parser = beside, value_delimiter = ',')]
    beside: Vec<Subject>,
    /// Threads to use [default: one for each processor].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Print all figures as JSON.
    #[arg(long)]
    json: bool,
    /// Write a page of HTML with charts, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The first and the last seed.
#[derive(Debug, Clone, Copy)]
struct Seeds {
    first: u64,
    last: u64,
}

impl Lab {
    /// Runs, prints, and gives the exit code: 0 if every target was kept, or missed as is known.
    pub fn run(&self) -> Result<ExitCode, Failure> {
        let scenarios: Vec<_> = match self.scenario.is_empty() {
            true => SCENARIOS.iter().collect(),
            false => self.scenario.clone(),
        };
        let seeds: Vec<_> = (self.seeds.first..=self.seeds.last).collect();
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.map_or_else(processors, usize::from);
        let report = lab::run(&scenarios, &self.beside, &seeds, threads);
        if let Some(path) = &self.html {
            std::fs::write(path, report.html())
                .map_err(|error| Failure::Run(format!("{}: {error}", path.display())))?;
        }
        super::print(&match self.json {
            true => format!("{}\n", report.json()),
            false => report.text(),
        });
        Ok(match report.is_good() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

fn seeds(text: &str) -> Result<Seeds, String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| text.parse::<u64>().ok();
    let both = number(first).zip(number(last));
    let both = both.filter(|(first, last)| first <= last && last - first < SEEDS_MAX);
    both.map(|(first, last)| Seeds { first, last })
        .ok_or_else(|| format!("write two numbers as \"1..5\", at most {SEEDS_MAX} seeds"))
}

fn scenario(id: &str) -> Result<&'static Scenario, String> {
    let found = SCENARIOS.iter().find(|scenario| scenario.id == id);
    found.ok_or_else(|| {
        let ids: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.id).collect();
        format!("there are {}", ids.join(", "))
    })
}

fn beside(name: &str) -> Result<Subject, String> {
    let mut others = Subject::OTHERS.into_iter();
    others.find(|it| it.name() == name).ok_or_else(|| {
        let names = Subject::OTHERS.map(Subject::name);
        format!("there are {}", names.join(", "))
    })
}
