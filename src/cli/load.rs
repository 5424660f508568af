//! `load`: many clients at once, against a server to be sized.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use stellwerk::config;
use stellwerk::load::plan::DURATION_MAX;
use stellwerk::load::{self, Impairment, Pacing, Plan, Preset, Progress, Report, Server, Shape};

use super::Failure;
use super::token::Signer;

/// Most joins in a second: what one thread can begin.
const RATE_MAX: i64 = 1000;

/// `load ...`.
#[derive(Debug, Args)]
pub struct Load {
    /// The server, as clients are given it.
    #[arg(long, default_value = "ws://127.0.0.1:7880")]
    url: String,
    #[command(flatten)]
    signer: Signer,
    /// A call of a usual shape; the numbers below go before it.
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    /// Rooms [default: 1].
    #[arg(long, value_name = "N")]
    rooms: Option<usize>,
    /// Participants of each room that send camera and microphone, and receive the others
    /// [default: 1].
    #[arg(long, value_name = "N")]
    publishers: Option<usize>,
    /// Participants of each room that only receive [default: 1].
    #[arg(long, value_name = "N")]
    subscribers: Option<usize>,
    /// How many join in a second [default: 50, of the preset ramp 10].
    #[arg(long, value_name = "N", value_parser = rate(1))]
    join_rate: Option<u32>,
    /// How many leave in each second that is measured, and others join in their places
    /// [default: 0].
    #[arg(long, value_name = "N", value_parser = rate(0))]
    churn: Option<u32>,
    /// How long to wait once all have joined: a server that raises what it sends by and by is
    /// measured when it has. Nothing with the preset ramp.
    #[arg(long, default_value = "0s", value_parser = wait)]
    warmup: Duration,
    /// How long to measure once all have joined, or with the preset ramp at most: "90s"
    /// [default: 30s, of the preset ramp 10m].
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// Give a share of those who only receive a bad network: "20%:loss=2,delay=40,jitter=10,
    /// rate=1500k" loses 2 % of the datagrams and takes 40 to 50 ms longer each way, and carries
    /// 1.5 Mbit/s down. For several networks it is given several times.
    #[arg(long, value_name = "SHARE%:WHAT=VALUE,...", value_parser = impairment)]
    impaired: Vec<Impairment>,
    /// Another number is other luck on bad networks; the same is the same.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How the packets of a frame are spread in time.
    #[arg(long, value_enum, default_value = "chromium")]
    pacing: Pacing,
    /// The server's process on this host, to tell its CPU time and memory.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Fail if more than this share of the packets is lost, in percent; those of participants with
    /// bad networks don't count.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    loss_max: Option<f64>,
    /// Load no server, but what every server has to do at least: open, seal, send. What it costs
    /// here is the floor beside which servers are to be seen.
    #[arg(long, conflicts_with_all = ["url", "pid", "churn", "join_rate", "impaired"])]
    floor: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Write the report as a page of HTML with charts, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Load {
    /// Runs, prints, and gives the exit code: 0 if everybody joined and no more was lost than may.
    pub fn run(&self) -> Result<ExitCode, Failure> {
        if self.floor && self.preset == Some(Preset::Ramp) {
            let problem = "the floor carries a shape, and has no limit to look for: give another";
            return Err(Failure::Usage(format!("{problem} --preset")));
        }
        let usual = self.preset.unwrap_or(Preset::Conference);
        let plan = Plan {
            shape: self.shape(),
            join_rate: self.join_rate.unwrap_or(usual.join_rate()),
            warmup: self.warmup,
            duration: self.duration.unwrap_or(usual.duration()),
            churn: self.churn.unwrap_or(usual.churn()),
            ramp: usual == Preset::Ramp,
            impairments: self.impaired.clone(),
            seed: self.seed,
            pacing: self.pacing,
            pid: self.pid,
        };
        if let Some(problem) = plan.problem() {
            return Err(Failure::Usage(problem));
        }
        // Two descriptors for each participant; what the host doesn't allow shows as failed joins.
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        let tell = |progress: &Progress<'_>| eprintln!("{progress}");
        let report = match self.floor {
            true => load::run_floor(plan, tell),
            false => load::run(plan, self.server()?, tell),
        };
        let report = report.map_err(Failure::Run)?;
        if let Some(path) = &self.html {
            std::fs::write(path, report.html())
                .map_err(|error| Failure::Run(format!("{}: {error}", path.display())))?;
        }
        super::print(&match self.json {
            true => format!("{}\n", report.json()),
            false => report.text(),
        });
        Ok(self.judge(&report))
    }

    fn server(&self) -> Result<Server, Failure> {
        let keys = self.signer.keys()?;
        let (key, secret) = self.signer.choose(&keys)?;
        Ok(Server {
            url: self.url.clone(),
            key: key.to_owned(),
            secret: secret.clone(),
        })
    }

    fn shape(&self) -> Shape {
        const ONE_CALL: Shape = Shape {
            rooms: 1,
            publishers: 1,
            subscribers: 1,
        };
        let preset = self.preset.map_or(ONE_CALL, Preset::shape);
        Shape {
            rooms: self.rooms.unwrap_or(preset.rooms),
            publishers: self.publishers.unwrap_or(preset.publishers),
            subscribers: self.subscribers.unwrap_or(preset.subscribers),
        }
    }

    fn judge(&self, report: &Report) -> ExitCode {
        let mut good = report.joins.failures == 0;
        let loss = report.loss_of_good() * 100.0;
        if let Some(most) = self.loss_max.filter(|most| loss > *most) {
            eprintln!("{loss:.4} % of the packets were lost, more than {most} %");
            good = false;
        }
        match good {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }
}

fn impairment(text: &str) -> Result<Impairment, String> {
    text.parse()
}

fn rate(least: i64) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(least..=RATE_MAX)
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = config::duration(text)?;
    match duration {
        Duration::ZERO => Err("measure for a while".to_owned()),
        long if long > DURATION_MAX => Err("a day is the longest".to_owned()),
        duration => Ok(duration),
    }
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = config::duration(text)?;
    match wait > DURATION_MAX {
        true => Err("a day is the longest".to_owned()),
        false => Ok(wait),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: Option<f64> = text.parse().ok();
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "write a number from 0 to 100".to_owned())
}
