//! This host: what the configuration says by itself, and the daemon where it listens.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hyper::{Method, StatusCode};
use stellwerk::config::{Config, DEV_SECRET, Keys, Problem};

use super::finding::{Finding, Id};
use super::scene::{Scene, join_request, random_name, uri};
use super::visit::Question;

/// The largest receive buffer that the kernel gives.
const RMEM_MAX: &str = "/proc/sys/net/core/rmem_max";

/// Different characters of a secret; one of 32 random hexadecimal digits has fewer once in many
/// millions.
const LETTERS_MIN: usize = 8;

const NEW_SECRET: &str = "Replace it by one from `openssl rand -base64 36`, and restart the \
    daemon.";

/// What the daemon would warn of at its start, and secrets of the homeserver; one finding each.
pub fn configuration(concerns: &[Problem], registration: Option<&Path>) -> Vec<Finding> {
    let id = Id::Configuration;
    let concerns = concerns.iter().map(|concern| {
        let text = concern.to_string();
        // Cause and remedy are one sentence there.
        match text.split_once("; ") {
            Some((cause, remedy)) => id.warning(cause, &sentence(remedy)),
            None => id.warning(text, "See docs/configuration.md."),
        }
    });
    let mut findings: Vec<Finding> = concerns.collect();
    if let Some(path) = registration.filter(|path| is_open(path)) {
        let path = path.display();
        findings.push(id.warning(
            format!("everyone on this host can read the tokens in {path}"),
            &format!("Run `chmod o-rwx {path}`."),
        ));
    }
    if findings.is_empty() {
        findings.push(id.ok("the configuration is right, and its secrets are nobody else's"));
    }
    findings
}

/// Whether strangers on this host can read it.
fn is_open(path: &Path) -> bool {
    let metadata = std::fs::metadata(path);
    metadata.is_ok_and(|it| it.permissions().mode() & 0o004 != 0)
}

/// Whether the kernel gives sockets the buffer that the configuration wants.
pub fn receive_buffer(config: &Config) -> Finding {
    let id = Id::ReceiveBuffer;
    let wanted = config.media.receive_buffer.get();
    let max = std::fs::read_to_string(RMEM_MAX).ok();
    let max: Option<usize> = max.and_then(|text| text.trim().parse().ok());
    match max {
        None => id.skipped(
            format!("{RMEM_MAX} can't be read"),
            "Run this command on the host of the daemon.",
        ),
        Some(max) if max < wanted => id.warning(
            format!(
                "the kernel gives a socket {max} bytes at most, media.receive_buffer wants \
                 {wanted}: bursts get lost in large calls"
            ),
            &format!(
                "Write net.core.rmem_max={wanted} into a file in /etc/sysctl.d, run \
                 `sysctl --system`, and restart the daemon."
            ),
        ),
        Some(_) => id.ok(format!(
            "a socket may have {wanted} bytes for datagrams that wait"
        )),
    }
}

/// A remedy that stood behind a cause, on its own.
pub fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    let end = if text.ends_with('.') { "" } else { "." };
    first.into_iter().chain(chars).collect::<String>() + end
}

/// Whether secrets can be guessed.
pub fn keys(keys: &Keys) -> Finding {
    let id = Id::Keys;
    let mut seen = HashSet::new();
    for (name, secret) in keys.iter() {
        let secret = secret.as_str();
        if secret == DEV_SECRET {
            let cause = format!("the key {name:?} has the secret for development, which is public");
            return id.failure(cause, NEW_SECRET);
        }
        if is_weak(secret) {
            let cause = format!("the secret of the key {name:?} is a pattern, and can be guessed");
            return id.warning(cause, NEW_SECRET);
        }
        if !seen.insert(secret) {
            let cause = format!("the key {name:?} has the secret of another");
            return id.warning(cause, NEW_SECRET);
        }
    }
    match seen.len() {
        0 => id.failure(
            "there is no API key, so nobody can join",
            "Add one under [keys] with a secret from `openssl rand -base64 36`.",
        ),
        _ => id.ok("the secrets of all keys are long and varied"),
    }
}

/// Few different characters, or one text again and again.
fn is_weak(secret: &str) -> bool {
    let letters: HashSet<u8> = secret.bytes().collect();
    let bytes = secret.as_bytes();
    let repeats = |period: &usize| bytes.iter().zip(&bytes[*period..]).all(|(a, b)| a == b);
    letters.len() < LETTERS_MIN || (1..=bytes.len() / 2).any(|period| repeats(&period))
}

/// The daemon at the address where the configuration has it listen.
pub async fn listener(scene: &Scene) -> Finding {
    let id = Id::Listener;
    let token = scene.token(&random_name(), |grant| grant.room_create = true);
    let Some(token) = token else {
        return id.skipped("there is no API key", "Add one under [keys].");
    };
    let query = format!("access_token={token}&join_request={}", join_request());
    let path = format!("{}/validate?{query}", scene.rtc());
    let local = scene.local().unwrap_or_default();
    let Some(uri) = uri(&local, &path) else {
        return id.skipped("http.listen is empty", "Set http.listen.");
    };
    match scene.visitor.ask(Question::new(Method::GET, uri)).await {
        Err(why) => id.failure(
            format!("{local} {why}"),
            "Start the daemon with this configuration, or run this command on its host.",
        ),
        Ok(answer) if answer.status == StatusCode::OK && answer.says("success") => {
            id.ok(format!("the daemon answers at {local}"))
        }
        Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => id.failure(
            format!("what listens at {local} has another API key"),
            "Restart the daemon with this configuration.",
        ),
        Ok(answer) => id.failure(
            format!("what listens at {local} answers with {}", answer.status),
            "See in the log of the daemon why, and whether it is the daemon that listens there.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;
    use stellwerk::config::Secret;

    #[test]
    fn secrets_that_can_be_guessed_are_found() {
        let judge = |secrets: &[&str]| {
            let mut some = Keys::default();
            for (name, secret) in ["a", "b"].into_iter().zip(secrets) {
                some.insert(name.to_owned(), Secret::new(secret).unwrap());
            }
            keys(&some).status
        };
        let good = "Zm9vYmFyYmF6cXV4LWEtZ29vZC1vbmU4Nzc1";
        assert_eq!(judge(&[good]), Status::Ok);
        assert_eq!(judge(&["8f1d6a0b53c94e27d1f6b83a5079ce42"]), Status::Ok);
        assert_eq!(judge(&[good, good]), Status::Warning);
        assert_eq!(judge(&[&"0123456789abcdef".repeat(2)]), Status::Warning);
        assert_eq!(
            judge(&[&"0123456789abcdef".repeat(3)[..40]]),
            Status::Warning
        );
        assert_eq!(
            judge(&["aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbcd"]),
            Status::Warning
        );
        assert_eq!(judge(&[good, DEV_SECRET]), Status::Failure);
        assert_eq!(judge(&[]), Status::Failure);
    }

    #[test]
    fn remedies_are_sentences() {
        assert_eq!(sentence("run `chmod o-rwx f`"), "Run `chmod o-rwx f`.");
    }
}
