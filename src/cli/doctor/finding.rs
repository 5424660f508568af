//! What was found: one line each, for people and for programs.

use serde::Serialize;

/// How good or bad it is; the worst of all decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Not looked at, because something isn't configured or given.
    Skipped,
    /// Calls work, but worse than they could, or not for much longer.
    Warning,
    /// Calls don't work, or not for everybody.
    Failure,
}

/// Declares what is looked at. The names are stable: monitoring knows them.
macro_rules! ids {
    ($($(#[$doc:meta])* $id:ident = $name:literal,)*) => {
        /// What is looked at. `docs/doctor.md` explains each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Id { $($(#[$doc])* $id,)* }

        impl Id {
            /// All of them, in the order of the output.
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$id,)*];

            /// The name for programs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$id => $name,)* }
            }
        }
    };
}

ids! {
    /// What the daemon itself warns of when it reads its configuration.
    Configuration = "configuration",
    /// API keys and their secrets.
    Keys = "keys",
    /// What the kernel allows for datagrams that wait.
    ReceiveBuffer = "receive-buffer",
    /// The daemon where it listens.
    Listener = "listener",
    /// The certificate at the public address.
    Certificate = "certificate",
    /// `/healthz` through the proxy.
    Healthz = "path-healthz",
    /// `/sfu/get` through the proxy.
    SfuGet = "path-sfu-get",
    /// `/get_token` through the proxy.
    GetToken = "path-get-token",
    /// `/delegate_delayed_leave` through the proxy.
    Delegate = "path-delegate",
    /// `/rtc/v1/validate` through the proxy, by a token of the configured key.
    Validate = "path-validate",
    /// The WebSocket upgrade through the proxy.
    Upgrade = "upgrade",
    /// Whether the proxy takes URLs as long as those of joins.
    LongUrl = "long-url",
    /// What lets pages of other origins read answers.
    Cors = "cors",
    /// What the Matrix server says of itself in public.
    WellKnown = "well-known",
    /// Whether pages may read that.
    WellKnownCors = "well-known-cors",
    /// Whether it leads here.
    WellKnownFocus = "well-known-focus",
    /// Whether it leads to the homeserver.
    BaseUrl = "well-known-homeserver",
    /// What the homeserver tells its users of services for calls.
    Transports = "transports",
    /// Experimental features of the homeserver that clients need.
    Features = "features",
    /// The client-server API of the homeserver.
    Homeserver = "homeserver",
    /// Whether it says whose an OpenID token is.
    UserInfo = "openid",
    /// Whether it knows us as its application service.
    Service = "application-service",
    /// Whether it says who is in a room.
    Membership = "membership",
    /// Whether it passes requests for tokens on to us.
    HomeserverProxy = "homeserver-proxy",
    /// Whether it sends events late, and how late.
    DelayedEvents = "delayed-events",
    /// Its time and ours.
    Clock = "clock",
    /// The addresses media is sent to.
    MediaPorts = "media-ports",
    /// A call of two.
    Call = "call",
}

/// One line of the report. Neither text has a token or a secret in it.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What was looked at.
    pub id: Id,
    /// How it is.
    pub status: Status,
    /// What was seen, in one sentence.
    pub cause: String,
    /// What to do, in one sentence; empty if nothing.
    pub remedy: String,
}

/// A line for programs.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    status: Status,
    cause: &'a str,
    remedy: &'a str,
}

impl Id {
    fn with(self, status: Status, cause: String, remedy: &str) -> Finding {
        Finding {
            id: self,
            status,
            cause,
            remedy: remedy.to_owned(),
        }
    }

    /// It is as it should be.
    pub fn ok(self, seen: impl Into<String>) -> Finding {
        self.with(Status::Ok, seen.into(), "")
    }

    /// It can be lived with.
    pub fn warning(self, cause: impl Into<String>, remedy: &str) -> Finding {
        self.with(Status::Warning, cause.into(), remedy)
    }

    /// It is broken.
    pub fn failure(self, cause: impl Into<String>, remedy: &str) -> Finding {
        self.with(Status::Failure, cause.into(), remedy)
    }

    /// It was not looked at.
    pub fn skipped(self, cause: impl Into<String>, remedy: &str) -> Finding {
        self.with(Status::Skipped, cause.into(), remedy)
    }
}

/// The exit code, as Nagios reads it. What was skipped is nobody's fault.
pub fn exit_code(findings: &[Finding]) -> u8 {
    match findings.iter().map(|finding| finding.status).max() {
        None | Some(Status::Ok | Status::Skipped) => 0,
        Some(Status::Warning) => 1,
        Some(Status::Failure) => 2,
    }
}

/// The report for people.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.status {
            Status::Ok => "ok     ",
            Status::Skipped => "skipped",
            Status::Warning => "WARNING",
            Status::Failure => "FAILURE",
        };
        text += &format!("{word}  {}: {}\n", finding.id.name(), finding.cause);
        if !finding.remedy.is_empty() {
            text += &format!("         -> {}\n", finding.remedy);
        }
    }
    let count = |status| findings.iter().filter(|it| it.status == status).count();
    text + &format!(
        "{} ok, {} skipped, {} warnings, {} failures\n",
        count(Status::Ok),
        count(Status::Skipped),
        count(Status::Warning),
        count(Status::Failure)
    )
}

/// The report for programs: a list.
pub fn json(findings: &[Finding]) -> String {
    let lines = findings.iter().map(|finding| Line {
        id: finding.id.name(),
        status: finding.status,
        cause: &finding.cause,
        remedy: &finding.remedy,
    });
    let lines: Vec<_> = lines.collect();
    let text = serde_json::to_string_pretty(&lines).expect("texts are JSON");
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_documented_and_nothing_else_is() {
        let page = include_str!("../../../docs/doctor.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let mut documented: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
        documented.dedup();
        let names: Vec<&str> = Id::ALL.iter().map(|id| id.name()).collect();
        assert_eq!(documented, names);
    }

    #[test]
    fn the_worst_decides() {
        let ok = Id::Cors.ok("one header");
        let skipped = Id::Cors.skipped("no address", "set one");
        let warning = Id::Cors.warning("odd", "mend it");
        let failure = Id::Cors.failure("none", "add one");
        assert_eq!(exit_code(&[]), 0);
        assert_eq!(exit_code(&[ok.clone(), skipped.clone()]), 0);
        assert_eq!(exit_code(&[warning.clone(), skipped.clone()]), 1);
        assert_eq!(
            exit_code(&[failure.clone(), warning.clone(), ok.clone()]),
            2
        );
        let text = text(&[ok, skipped, warning, failure]);
        assert!(
            text.contains("FAILURE  cors: none\n         -> add one\n"),
            "{text}"
        );
        assert!(text.ends_with("1 ok, 1 skipped, 1 warnings, 1 failures\n"));
    }
}
