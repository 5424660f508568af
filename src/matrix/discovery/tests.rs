use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use hyper::header::HeaderValue;

use super::*;

/// A world made of tables, that writes down what it is asked.
#[derive(Default)]
struct Tables {
    hosts: HashMap<&'static str, Vec<&'static str>>,
    services: HashMap<&'static str, Vec<Service>>,
    /// By `Host` and path.
    pages: HashMap<String, Page>,
    /// Pages that never come.
    hangs: bool,
    steps: Mutex<Vec<String>>,
}

#[derive(Clone, Default)]
struct Page {
    status: u16,
    headers: Vec<(HeaderName, String)>,
    body: String,
}

impl Tables {
    fn step(&self, step: String) {
        self.steps.lock().unwrap().push(step);
    }

    fn steps(&self) -> String {
        std::mem::take(&mut *self.steps.lock().unwrap()).join(", ")
    }
}

impl World for Tables {
    async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        self.step(format!("A {host}"));
        let found = self.hosts.get(host).into_iter().flatten();
        found.map(|ip| ip.parse().unwrap()).collect()
    }

    async fn services(&self, service: &str) -> Vec<Service> {
        self.step(format!("SRV {service}"));
        self.services.get(service).cloned().unwrap_or_default()
    }

    async fn ask(&self, place: &Place, question: Question<'_>) -> Result<Response, Trouble> {
        let (name, host, _) = place.seen();
        assert!(host.starts_with(&name), "{name} {host}");
        let url = format!("{host}{}", question.path);
        self.step(format!("GET {url}"));
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let page = self.pages.get(&url).ok_or(Trouble::Unreachable)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &page.headers {
            headers.insert(name, HeaderValue::try_from(value).unwrap());
        }
        Ok(Response {
            status: StatusCode::from_u16(page.status).unwrap(),
            headers,
            body: Bytes::from(page.body.clone()),
        })
    }
}

fn service(priority: u16, port: u16, host: &str) -> Service {
    Service {
        priority,
        weight: 1,
        port,
        host: host.to_owned(),
    }
}

/// `hosts` all exist.
fn world(hosts: &[(&'static str, &'static str)]) -> Discovery<Tables> {
    let mut tables = Tables::default();
    for (host, ip) in hosts {
        tables.hosts.entry(host).or_default().push(ip);
    }
    Discovery::new(tables)
}

impl Discovery<Tables> {
    fn page(&mut self, url: &str, status: u16, body: &str) -> &mut Page {
        let page = Page {
            status,
            body: body.to_owned(),
            headers: Vec::new(),
        };
        self.world
            .pages
            .entry(url.to_owned())
            .insert_entry(page)
            .into_mut()
    }

    fn delegates(&mut self, host: &str, to: &str) -> &mut Page {
        let body = format!(r#"{{"m.server": "{to}"}}"#);
        self.page(&format!("{host}/.well-known/matrix/server"), 200, &body)
    }

    fn redirects(&mut self, url: &str, to: &str) {
        let page = self.page(url, 302, "");
        page.headers.push((LOCATION, to.to_owned()));
    }

    /// Name of the certificate, `Host`, and addresses, in one line; and the steps to there.
    async fn found(&self, server: &str) -> (String, String) {
        let place = self.federation(server).await;
        let place = place.map_or("nowhere".to_owned(), |place| {
            let (name, host, addresses) = place.seen();
            format!("{name} {host} {}", addresses.join(" "))
        });
        (place, self.world.steps())
    }
}

#[test]
fn names_are_taken_apart() {
    let at = |text: &str| Stated::Address(text.parse().unwrap());
    for (name, parts) in [
        ("1.2.3.4", Some(at("1.2.3.4:8448"))),
        ("1.2.3.4:1", Some(at("1.2.3.4:1"))),
        ("[2003::1]", Some(at("[2003::1]:8448"))),
        ("[2003::1]:443", Some(at("[2003::1]:443"))),
        ("a.example", Some(Stated::Host("a.example"))),
        ("a.example:1", Some(Stated::Port("a.example", 1))),
        // Neither is an address to us, and so no way around the check of one.
        ("127.1", Some(Stated::Host("127.1"))),
        ("0x7f000001", Some(Stated::Host("0x7f000001"))),
        ("a.example:0", None),
        ("a.example/", None),
        ("u@a.example", None),
        ("", None),
    ] {
        assert_eq!(stated(name), parts, "{name}");
    }
}

#[tokio::test]
async fn addresses_and_ports_are_taken_as_they_are() {
    let world = world(&[("a.example", "1.2.3.4"), ("a.example", "2003::1")]);
    for (server, place, steps) in [
        ("1.2.3.4", "1.2.3.4 1.2.3.4 1.2.3.4:8448", ""),
        ("1.2.3.4:99", "1.2.3.4 1.2.3.4:99 1.2.3.4:99", ""),
        ("[2003::1]", "2003::1 [2003::1] [2003::1]:8448", ""),
        (
            "a.example:99",
            "a.example a.example:99 1.2.3.4:99 [2003::1]:99",
            "A a.example",
        ),
    ] {
        let found = world.found(server).await;
        assert_eq!((&*found.0, &*found.1), (place, steps));
    }
}

const PLAIN: &str = "A a.example, GET a.example/.well-known/matrix/server";

#[tokio::test]
async fn a_delegation_is_followed_by_the_same_rules() {
    let hosts = [("a.example", "1.2.3.4"), ("b.example", "1.2.3.5")];
    for (to, place, steps) in [
        ("1.2.3.6", "1.2.3.6 1.2.3.6 1.2.3.6:8448", ""),
        ("1.2.3.6:9", "1.2.3.6 1.2.3.6:9 1.2.3.6:9", ""),
        (
            "b.example:9",
            "b.example b.example:9 1.2.3.5:9",
            ", A b.example",
        ),
        (
            "b.example",
            "b.example b.example 1.2.3.5:8448",
            ", SRV _matrix-fed._tcp.b.example, SRV _matrix._tcp.b.example, A b.example",
        ),
    ] {
        let mut world = world(&hosts);
        world.delegates("a.example", to);
        let found = world.found("a.example").await;
        assert_eq!(found, (place.to_owned(), format!("{PLAIN}{steps}")));
    }
}

/// Whatever is wrong with it, it is as if there were none.
#[tokio::test]
async fn without_a_delegation_it_is_srv_and_then_the_usual_port() {
    let steps = ", SRV _matrix-fed._tcp.a.example, SRV _matrix._tcp.a.example, A a.example";
    for (status, body) in [
        (404, r#"{"m.server": "b.example"}"#),
        (200, "<html>"),
        (200, "[]"),
        (200, "{}"),
        (200, r#"{"m.server": 1}"#),
        (200, r#"{"m.server": "b.example/c"}"#),
        (200, r#"{"m.server": "u@b.example"}"#),
        (302, ""),
        (500, ""),
    ] {
        let mut world = world(&[("a.example", "1.2.3.4")]);
        world.page("a.example/.well-known/matrix/server", status, body);
        let found = world.found("a.example").await;
        assert_eq!(
            found.0, "a.example a.example 1.2.3.4:8448",
            "{status} {body}"
        );
        assert_eq!(found.1, format!("{PLAIN}{steps}"));
    }
}

#[tokio::test]
async fn services_come_in_order_and_under_the_name_before() {
    let mut world = world(&[
        ("x.example.", "1.1.1.1"),
        ("y.example.", "1.1.1.2"),
        ("y.example.", "127.0.0.1"),
        ("z.example.", "1.1.1.3"),
    ]);
    let services = &mut world.world.services;
    let fed = vec![service(20, 2, "y.example."), service(10, 1, "x.example.")];
    services.insert("_matrix-fed._tcp.a.example", fed);
    services.insert("_matrix._tcp.a.example", vec![service(1, 3, "z.example.")]);
    services.insert("_matrix._tcp.b.example", vec![service(1, 3, "z.example.")]);
    services.insert("_matrix-fed._tcp.c.example", vec![service(0, 0, ".")]);
    let places = [
        ("a.example", "a.example a.example 1.1.1.1:1 1.1.1.2:2"),
        ("b.example", "b.example b.example 1.1.1.3:3"),
        // Says that there is none: that is not the same as saying nothing.
        ("c.example", "nowhere"),
    ];
    for (server, place) in places {
        assert_eq!(world.found(server).await.0, place);
    }
}

#[test]
fn weights_share_among_equals() {
    let mut heavy = service(1, 1, "heavy.");
    heavy.weight = 3;
    let mut none = service(1, 3, "none.");
    none.weight = 0;
    let services = vec![service(1, 2, "light."), heavy, none, service(2, 4, "last.")];
    let mut first = [0; 5];
    for _ in 0..4000 {
        let order = in_order(services.clone());
        first[usize::from(order[0].port)] += 1;
        assert_eq!(order[3].port, 4);
    }
    // Three quarters, within six standard deviations.
    assert!((2836..3164).contains(&first[1]), "{first:?}");
    assert!(first[3] < 100, "{first:?}");
}

#[tokio::test]
async fn private_addresses_are_refused_at_every_step() {
    for ip in [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "::1",
        "fc00::1",
        "::ffff:10.0.0.1",
    ] {
        let mut world = world(&[("a.example", ip), ("b.example", "1.2.3.4"), ("in.", ip)]);
        let bracketed = bracketed(ip.parse().unwrap());
        let literal = world.found(&bracketed).await;
        assert_eq!(literal, ("nowhere".to_owned(), String::new()));
        // The name: it is not even asked for its .well-known.
        assert_eq!(world.found("a.example").await.0, "nowhere");
        assert_eq!(world.found("a.example:443").await.0, "nowhere");
        // A delegation, to an address and to a name.
        for to in [&*bracketed, "a.example:80"] {
            world.delegates("b.example", to);
            assert_eq!(world.found("b.example").await.0, "nowhere");
            world.delegations = Cache::default();
        }
        // A redirect, which counts as none.
        let url = "b.example/.well-known/matrix/server";
        world.redirects(url, &format!("https://{bracketed}/x"));
        world.page(&format!("{bracketed}/x"), 200, r#"{"m.server": "1.1.1.1"}"#);
        assert_eq!(
            world.found("b.example").await.0,
            "b.example b.example 1.2.3.4:8448"
        );
        // A service.
        let services = vec![service(1, 443, "in.")];
        world
            .world
            .services
            .insert("_matrix-fed._tcp.b.example", services);
        assert_eq!(world.found("b.example").await.0, "nowhere");
    }
}

#[tokio::test]
async fn redirects_are_followed_so_far() {
    let mut world = world(&[("a.example", "1.2.3.4"), ("b.example", "1.2.3.5")]);
    world.redirects("a.example/.well-known/matrix/server", "/x/1");
    world.redirects("a.example/x/1", "2?y");
    world.redirects("a.example/x/2?y", "//b.example:9/3#z");
    world.redirects("b.example:9/3", "https://b.example/4");
    world.page("b.example/4", 200, r#"{"m.server": "1.1.1.1"}"#);
    assert_eq!(
        world.found("a.example").await.0,
        "1.1.1.1 1.1.1.1 1.1.1.1:8448"
    );
    for bad in [
        "http://b.example/4",
        "https://u:p@b.example/4",
        "ftp://b.example/4",
        "https:///4",
        "/x/1",
    ] {
        world.delegations = Cache::default();
        world.redirects("a.example/x/1", bad);
        world.world.steps();
        let found = world.found("a.example").await;
        assert_eq!(found.0, "a.example a.example 1.2.3.4:8448", "{bad}");
        assert!(
            found.1.matches("GET").count() <= REDIRECTS + 1,
            "{}",
            found.1
        );
        assert!(!found.1.contains("b.example"), "{}", found.1);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_remembered_as_long_as_they_say() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let at = |text: &str| (DATE, format!("Sun, 06 Nov 1994 {text} GMT"));
    let until = |text: &str| (EXPIRES, format!("Sun, 06 Nov 1994 {text} GMT"));
    let control = |text: &str| (CACHE_CONTROL, text.to_owned());
    for (headers, expected) in [
        (vec![], minutes(24 * 60)),
        (vec![control("public, Max-Age=3600")], minutes(60)),
        (vec![control("max-age=1")], minutes(5)),
        (vec![control("max-age=99999999")], minutes(48 * 60)),
        (
            vec![control("max-age=99999999999999999999999")],
            minutes(24 * 60),
        ),
        (vec![control("max-age=3600, no-store")], minutes(5)),
        (vec![at("08:00:00"), until("09:30:00")], minutes(90)),
        (vec![at("08:00:00"), until("07:30:00")], minutes(5)),
        (vec![at("08:00:00"), (EXPIRES, "0".to_owned())], minutes(5)),
        (vec![until("09:30:00")], minutes(24 * 60)),
        (
            vec![control("max-age=600"), at("08:00:00"), until("09:30:00")],
            minutes(10),
        ),
    ] {
        let mut world = world(&[("a.example", "1.2.3.4")]);
        world.delegates("a.example", "1.1.1.1").headers = headers.clone();
        let asked = world.found("a.example").await.1;
        assert_eq!(asked, PLAIN);
        tokio::time::advance(expected - Duration::from_secs(1)).await;
        assert_eq!(world.found("a.example").await.1, "", "{headers:?}");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(world.found("a.example").await.1, PLAIN, "{headers:?}");
    }
}

/// A host that swallows what is sent to port 443 costs its first visitor some seconds, no other.
#[tokio::test(start_paused = true)]
async fn silence_is_remembered_too() {
    let mut world = world(&[("a.example", "1.2.3.4")]);
    world.world.hangs = true;
    let asked = tokio::time::Instant::now();
    assert_eq!(
        world.found("a.example").await.0,
        "a.example a.example 1.2.3.4:8448"
    );
    assert!(asked.elapsed() <= WELL_KNOWN_TIME + Duration::from_millis(1));
    let steps = world.found("a.example").await.1;
    assert!(!steps.contains("GET"), "{steps}");
    tokio::time::advance(LIFE_OF_NONE).await;
    world.world.hangs = false;
    assert!(world.found("a.example").await.1.contains("GET"));
}

#[tokio::test(start_paused = true)]
async fn client_server_apis_are_found_and_remembered() {
    let mut world = world(&[("a.example", "1.2.3.4")]);
    let url = "a.example/.well-known/matrix/client";
    let body = |base: &str| format!(r#"{{"m.homeserver": {{"base_url": "{base}"}}, "x": 1}}"#);
    for bad in [
        "http://c.example",
        "c.example",
        &format!("https://c/{}", "a".repeat(1100)),
    ] {
        world.page(url, 200, &body(bad));
        assert_eq!(world.client("a.example").await, None);
        world.clients = Cache::default();
    }
    world.page(url, 200, &body("https://c.example/m/"));
    let base = world.client("a.example:8448").await.unwrap();
    assert_eq!(base, "https://c.example/m/");
    world.world.steps();
    tokio::time::advance(LIFE_OF_CLIENT - Duration::from_secs(1)).await;
    assert_eq!(world.client("a.example").await, Some(base));
    assert_eq!(world.world.steps(), "");
    tokio::time::advance(Duration::from_secs(1)).await;
    world.client("a.example").await;
    assert_ne!(world.world.steps(), "");
    // The place of such an address: as strict as any other.
    for (url, there) in [
        ("https://1.2.3.4/x", true),
        ("https://[2003::1]:8/x", true),
        ("https://127.0.0.1/x", false),
        ("https://[::1]/x", false),
        ("http://1.2.3.4/x", false),
        ("https://u:p@1.2.3.4/x", false),
        ("/x", false),
    ] {
        let place = world.place_of(&url.parse().unwrap()).await;
        assert_eq!(place.is_some(), there, "{url}");
    }
}
