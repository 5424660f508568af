//! DNS: addresses of hosts, and hosts of services, as the system is configured to ask.
//!
//! The configuration is read with the first question, so that a daemon that doesn't federate
//! never looks. An answer is only material: whoever connects checks the addresses.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::sync::OnceCell;

/// How long a name server may take for one answer, and how often it is asked again.
const ANSWER_TIME: Duration = Duration::from_secs(2);
const RETRIES: usize = 1;

/// Answers the resolver remembers, for the time that they say.
const ANSWERS: u64 = 1000;

/// Records of one answer that are looked at; they come from strangers, 64 KiB of them.
const RECORDS: usize = 32;

/// A host that offers a service (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// The smallest is to be tried first.
    pub priority: u16,
    /// The larger, the more often among equals.
    pub weight: u16,
    pub port: u16,
    /// `.` if the service is decidedly not there.
    pub host: String,
}

/// Who is asked.
#[derive(Default)]
pub struct Names {
    system: OnceCell<TokioResolver>,
    /// All the names there are, in a test.
    #[cfg(test)]
    pub book: Option<Book>,
}

/// Addresses by host, and hosts by service.
#[cfg(test)]
#[derive(Clone, Default)]
pub struct Book {
    pub addresses: std::collections::HashMap<String, Vec<IpAddr>>,
    pub services: std::collections::HashMap<String, Vec<Service>>,
}

impl Names {
    /// The addresses of a host, of both families; none if it can't be found.
    pub async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        #[cfg(test)]
        if let Some(book) = &self.book {
            return book.addresses.get(host).cloned().unwrap_or_default();
        }
        let Some(resolver) = self.resolver().await else {
            return Vec::new();
        };
        match resolver.lookup_ip(absolute(host)).await {
            Ok(found) => found.iter().take(RECORDS).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// The hosts of a service such as `_matrix-fed._tcp.example.org`; none if it isn't announced.
    pub async fn services(&self, service: &str) -> Vec<Service> {
        #[cfg(test)]
        if let Some(book) = &self.book {
            return book.services.get(service).cloned().unwrap_or_default();
        }
        let Some(resolver) = self.resolver().await else {
            return Vec::new();
        };
        let Ok(found) = resolver.lookup(absolute(service), RecordType::SRV).await else {
            return Vec::new();
        };
        let records = found.answers().iter().take(RECORDS);
        let services = records.filter_map(|record| match &record.data {
            RData::SRV(service) => Some(Service {
                priority: service.priority,
                weight: service.weight,
                port: service.port,
                host: service.target.to_ascii(),
            }),
            _ => None,
        });
        services.collect()
    }

    async fn resolver(&self) -> Option<&TokioResolver> {
        let make = async || {
            let mut builder = TokioResolver::builder_tokio()?;
            let options = builder.options_mut();
            options.timeout = options.timeout.min(ANSWER_TIME);
            options.attempts = options.attempts.min(RETRIES);
            options.cache_size = ANSWERS;
            // Hosts without a way to IPv6 are more than those without one to IPv4.
            options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            builder.build()
        };
        let made = self.system.get_or_try_init(make).await;
        made.inspect_err(|error| tracing::debug!(%error, "DNS is not configured"))
            .ok()
    }
}

/// With the dot that keeps the search domains of this host out.
fn absolute(name: &str) -> String {
    match name.ends_with('.') {
        true => name.to_owned(),
        false => format!("{name}."),
    }
}
