//! Real TLS and HTTP, on loopback. The numbers are those of the conformance checklist of MatrixRTC.

mod town;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use town::{Reply, Town, listen};

use super::*;

const ASKER: Household = Household::of(IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)));

/// Asks a stranger for the user who is `@u:{server}`, without the wait for a failure.
async fn ask(homeservers: &Homeservers, server: &str) -> Result<String, Unverified> {
    ask_for(homeservers, server, server).await
}

async fn ask_for(
    homeservers: &Homeservers,
    server: &str,
    token: &str,
) -> Result<String, Unverified> {
    let federation = homeservers.federation.as_ref().unwrap();
    let path = format!(
        "/_matrix/federation/v1/openid/userinfo?access_token={}",
        escaped(token)
    );
    let question = Question::get(&path);
    let answer = in_time::<Unverified>(federation.question(server, question, ASKER)).await?;
    user(server, None, &answer).map(|user| user.as_str().to_owned())
}

fn delegates(to: &'static str) -> impl Fn(&str) -> Reply {
    move |path| match path {
        "/.well-known/matrix/server" => Reply::Json(format!(r#"{{"m.server": "{to}"}}"#)),
        _ => Reply::UserInfo,
    }
}

fn userinfo(_: &str) -> Reply {
    Reply::UserInfo
}

/// 21: every way leads to the right socket, under the right names.
#[tokio::test]
async fn each_way_ends_at_its_socket_with_its_names() {
    let mut town = Town::new();
    for name in ["port", "deleg", "target", "fed", "old", "plain"] {
        town.host(&format!("{name}.example"), &["1.2.3.4"]);
    }
    town.host("srv.elsewhere.", &["1.2.3.5"]);
    town.service("_matrix-fed._tcp.fed.example", "srv.elsewhere.", 1001);
    town.service("_matrix._tcp.old.example", "srv.elsewhere.", 1002);
    town.serve(
        "1.2.3.4:443",
        &["deleg.example"],
        delegates("target.example:77"),
    )
    .await;
    for (server, at, name, host) in [
        ("5.6.7.8", "5.6.7.8:8448", None, "5.6.7.8"),
        ("5.6.7.9:99", "5.6.7.9:99", None, "5.6.7.9:99"),
        ("[2003::1]", "[2003::1]:8448", None, "[2003::1]"),
        (
            "port.example:99",
            "1.2.3.4:99",
            Some("port.example"),
            "port.example:99",
        ),
        (
            "deleg.example",
            "1.2.3.4:77",
            Some("target.example"),
            "target.example:77",
        ),
        (
            "fed.example",
            "1.2.3.5:1001",
            Some("fed.example"),
            "fed.example",
        ),
        (
            "old.example",
            "1.2.3.5:1002",
            Some("old.example"),
            "old.example",
        ),
        (
            "plain.example",
            "1.2.3.4:8448",
            Some("plain.example"),
            "plain.example",
        ),
    ] {
        let at: SocketAddr = at.parse().unwrap();
        let ip = at.ip().to_string();
        let there = town
            .serve(&at.to_string(), &[name.unwrap_or(&ip)], userinfo)
            .await;
        let homeservers = town.homeservers();
        assert_eq!(ask(&homeservers, server).await, Ok(format!("@u:{server}")));
        let seen = there.seen();
        assert_eq!(seen.len(), 1, "{server}");
        assert_eq!(seen[0].sni.as_deref(), name, "{server}");
        assert_eq!(seen[0].header("host"), Some(host), "{server}");
        assert_eq!(seen[0].header("authorization"), None);
    }
}

/// 22: nothing is connected to whose address isn't public, whoever leads there.
#[tokio::test]
async fn private_addresses_are_never_connected_to() {
    for ip in [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "::1",
        "fc00::1",
        "::ffff:10.0.0.1",
    ] {
        let mut town = Town::new();
        let at = |port| SocketAddr::new(ip.parse().unwrap(), port).to_string();
        let literal = at(8448);
        let redirect = format!("https://{}/", at(443));
        town.host("name.example", &[ip]);
        town.host("both.example", &["1.2.3.4", ip]);
        town.host("there.example", &["1.2.3.5"]);
        town.host("hop.example", &["1.2.3.6"]);
        town.service("_matrix-fed._tcp.there.example", "name.example", 8448);
        let moved = format!("HTTP/1.1 302 Found\r\nLocation: {redirect}\r\n\r\n");
        let hop = move |_: &str| Reply::Raw(moved.clone());
        let hop = town.serve("1.2.3.6:443", &["hop.example"], hop).await;
        let mut traps = Vec::new();
        for port in [443, 8448] {
            let names = [
                "name.example",
                "both.example",
                "hop.example",
                "there.example",
            ];
            traps.push(town.serve(&at(port), &names, userinfo).await);
        }
        let both = town
            .serve("1.2.3.4:8448", &["both.example"], userinfo)
            .await;
        let homeservers = town.homeservers();
        for server in [
            "name.example",
            "name.example:443",
            "there.example",
            "hop.example",
            &literal,
        ] {
            let answer = ask(&homeservers, server).await;
            assert_eq!(answer, Err(Unverified::Unreachable), "{server} {ip}");
        }
        // The other of its addresses does.
        assert_eq!(
            ask(&homeservers, "both.example").await,
            Ok("@u:both.example".to_owned())
        );
        assert_eq!((hop.taken(), both.taken()), (1, 1));
        assert_eq!(
            traps.iter().map(|trap| trap.taken()).sum::<usize>(),
            0,
            "{ip}"
        );
    }
}

/// 23: whatever a server does with a request, it costs little and ends.
#[tokio::test]
async fn bad_servers_cost_little() {
    let mut town = Town::new();
    let mut servers = Vec::new();
    let around = |path: &str| {
        let next = path.len();
        let moved = format!("HTTP/1.1 302 Found\r\nLocation: {path}{next}\r\n");
        Reply::Raw(format!(
            "{moved}Connection: close\r\nContent-Length: 0\r\n\r\n"
        ))
    };
    let heads = |_: &str| {
        let header = format!("X: {}\r\n", "x".repeat(1000));
        Reply::Raw(format!("HTTP/1.1 200 OK\r\n{}", header.repeat(200)))
    };
    let lie = |_: &str| Reply::Raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}".to_owned());
    type Behaviour = Box<dyn Fn(&str) -> Reply + Send + Sync>;
    let behaviours: Vec<Behaviour> = vec![
        Box::new(|_| Reply::Bytes(10 << 20)),
        Box::new(|_| Reply::Bytes(usize::MAX)),
        Box::new(|_| Reply::Drip),
        Box::new(|_| Reply::Silence),
        Box::new(around),
        Box::new(heads),
        Box::new(lie),
        Box::new(|_| Reply::Raw("SSH-2.0-x\r\n".to_owned())),
    ];
    for (number, behaviour) in behaviours.into_iter().enumerate() {
        let behaviour = Arc::new(behaviour);
        let (name, ip) = (format!("{number}.example"), format!("1.2.3.{number}"));
        town.host(&name, &[&ip]);
        for port in [443, 8448] {
            let reply = Arc::clone(&behaviour);
            let at = format!("{ip}:{port}");
            let server = town.serve(&at, &[&name], move |path| reply(path)).await;
            servers.push(server);
        }
    }
    let homeservers = Arc::new(town.homeservers());
    let started = Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..servers.len() / 2 {
        let homeservers = Arc::clone(&homeservers);
        asking.spawn(async move { ask(&homeservers, &format!("{number}.example")).await });
    }
    for answer in asking.join_all().await {
        let error = answer.unwrap_err();
        assert!(matches!(
            error,
            Unverified::Unreachable | Unverified::Timeout | Unverified::Refused
        ));
    }
    assert!(started.elapsed() < TOTAL_TIME + Duration::from_secs(1));
    // The rest stays in the buffers of the kernel.
    for server in &servers {
        assert!(server.sent.load(Ordering::Relaxed) < 9 << 20);
    }
    let around = &servers[8];
    assert_eq!(around.taken(), 6, "one request and five redirects");
}

/// 24: what the configuration says is neither looked up nor filtered.
#[tokio::test]
async fn configured_homeservers_are_where_they_are_said_to_be() {
    let plain = listen(None, userinfo).await;
    let mut town = Town::new();
    let secure = listen(Some(town.acceptor(&["localhost"])), userinfo).await;
    let mut map = format!("a.example=http://{}/base/", plain.address);
    map += &format!(",b.example=https://localhost:{}", secure.address.port());
    town.set("homeservers", &map);
    for federation in ["false", "true"] {
        town.set("federation", federation);
        let homeservers = town.homeservers();
        for server in ["a.example", "b.example"] {
            let user = homeservers
                .user_of(server, server, None, ASKER)
                .await
                .unwrap();
            assert_eq!(user.as_str(), format!("@u:{server}"));
        }
    }
    let seen = plain.seen();
    let line = seen[0].head.lines().next().unwrap();
    let path = "/base/_matrix/federation/v1/openid/userinfo?access_token=a%2Eexample";
    assert_eq!(line, format!("GET {path} HTTP/1.1"));
    assert_eq!(secure.seen()[0].sni.as_deref(), Some("localhost"));
    // No other is asked without federation.
    town.set("federation", "false");
    let homeservers = town.homeservers();
    let other = homeservers
        .user_of("c.example", "c.example", None, ASKER)
        .await;
    assert_eq!(other, Err(Unverified::NotAllowed));
}

/// 25: the right name from the right authority, or nothing.
#[tokio::test]
async fn certificates_are_for_the_name_and_from_an_authority() {
    let mut town = Town::new();
    let stranger = Town::new();
    let wrong = town.acceptor(&["other.example"]);
    let unknown = stranger.acceptor(&["localhost", "unknown.example"]);
    let wrong = listen(Some(wrong), userinfo).await;
    let unknown = listen(Some(unknown), userinfo).await;
    for (name, server) in [("wrong.example", &wrong), ("unknown.example", &unknown)] {
        town.host(name, &["1.2.3.4"]);
        let public = format!("1.2.3.4:{}", server.address.port());
        town.detours.push((public.parse().unwrap(), server.address));
    }
    let mut map = format!("a.example=https://localhost:{}", wrong.address.port());
    map += &format!(",b.example=https://localhost:{}", unknown.address.port());
    town.set("homeservers", &map);
    let wrong_name = format!("wrong.example:{}", wrong.address.port());
    let unknown_name = format!("unknown.example:{}", unknown.address.port());
    for insecure in [false, true] {
        if insecure {
            town.set("insecure_skip_verify", "YES_I_KNOW_WHAT_I_AM_DOING");
        }
        let homeservers = town.homeservers();
        for server in ["a.example", "b.example"] {
            let user = homeservers.user_of(server, server, None, ASKER).await;
            assert_eq!(user.is_ok(), insecure, "{server} {user:?}");
        }
        for server in [&wrong_name, &unknown_name] {
            let user = ask(&homeservers, server).await;
            assert_eq!(user.is_ok(), insecure, "{server} {user:?}");
        }
    }
}

/// A file that isn't there stops the start, and isn't looked for if nothing needs it.
#[test]
fn certificates_are_read_where_there_is_https() {
    let mut town = Town::new();
    town.set("extra_ca", "/nowhere.pem");
    town.set("homeservers", "a.example=http://127.0.0.1:1");
    assert!(trust::tls(&town.config()).is_err());
    town.set("federation", "false");
    assert!(trust::tls(&town.config()).is_ok());
    town.set("cs_api", "a.example=https://127.0.0.1:1");
    let error = trust::tls(&town.config()).unwrap_err().to_string();
    assert!(error.contains("/nowhere.pem"), "{error}");
}

#[tokio::test]
async fn answers_have_to_name_a_user_of_the_server() {
    let answers = [
        (r#"{"sub": "@u:b.example"}"#, Unverified::ForeignSub),
        (r#"{"sub": "@u:a.example:8448"}"#, Unverified::ForeignSub),
        (r#"{"sub": "@u:A.example"}"#, Unverified::ForeignSub),
        (r#"{"sub": "u"}"#, Unverified::ForeignSub),
        (r#"{"sub": ""}"#, Unverified::ForeignSub),
        (r#"{"sub": 1}"#, Unverified::Refused),
        (r#"{}"#, Unverified::Refused),
        (r#"[]"#, Unverified::Refused),
        ("", Unverified::Refused),
    ];
    let server = listen(None, move |path: &str| {
        let number = path.rsplit('=').next().unwrap().parse::<usize>();
        match number.ok().and_then(|number| answers.get(number)) {
            Some((answer, _)) => Reply::Json((*answer).to_owned()),
            None => Reply::Raw("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n".to_owned()),
        }
    });
    let mut town = Town::new();
    town.set(
        "homeservers",
        &format!("a.example=http://{}", server.await.address),
    );
    let homeservers = town.homeservers();
    for (number, (answer, reason)) in answers.iter().enumerate() {
        let user = homeservers
            .user_of("a.example", &number.to_string(), None, ASKER)
            .await;
        assert_eq!(user, Err(*reason), "{answer}");
    }
    let long = "a".repeat(TOKEN_BYTES + 1);
    for token in ["x", "", &long] {
        let user = homeservers.user_of("a.example", token, None, ASKER).await;
        assert_eq!(user, Err(Unverified::Refused));
    }
    let stats = homeservers.stats();
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((read(&stats.foreign), read(&stats.refused)), (5, 7));
}

/// What went wrong at a stranger's can't be told from when it is said.
#[tokio::test(start_paused = true)]
async fn failures_are_told_at_fixed_times() {
    let mut town = Town::new();
    town.host("private.example", &["10.0.0.1"]);
    let homeservers = town.homeservers();
    let mut times = Vec::new();
    for server in ["nowhere.example", "private.example", "127.0.0.1", "no name"] {
        let asked = Instant::now();
        let user = homeservers.user_of(server, "x", None, ASKER).await;
        assert_eq!(user, Err(Unverified::Unreachable));
        times.push(asked.elapsed().as_millis());
    }
    assert!(
        times.iter().all(|time| (5000..5010).contains(time)),
        "{times:?}"
    );
}

/// 20: a homeserver that hangs, and a thousand who wait for it.
#[tokio::test]
async fn a_hanging_homeserver_delays_nobody_elses_users() {
    let mut town = Town::new();
    let hanging = listen(None, |_: &str| Reply::Silence).await;
    let quick = listen(None, userinfo).await;
    let map = format!(
        "a.example=http://{},b.example=http://{}",
        hanging.address, quick.address
    );
    town.set("homeservers", &map);
    town.host("slow.example", &["1.2.3.4"]);
    town.serve("1.2.3.4:8448", &["slow.example"], |_: &str| Reply::Silence)
        .await;
    town.serve("1.2.3.4:99", &["quick.example"], userinfo).await;
    town.host("quick.example", &["1.2.3.4"]);
    let homeservers = Arc::new(town.homeservers());
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..1000_u32 {
        for server in ["a.example", "slow.example"] {
            let homeservers = Arc::clone(&homeservers);
            // Each from an address of its own, or that would stop them earlier.
            let asker = Household::of(Ipv4Addr::from_bits(number).into());
            waiting.spawn(async move { homeservers.user_of(server, "x", None, asker).await });
        }
    }
    let there = || async {
        while hanging.seen().len() < TURNS {
            tokio::task::yield_now().await
        }
    };
    timeout(Duration::from_secs(5), there()).await.unwrap();
    for server in ["b.example", "quick.example:99"] {
        let asked = Instant::now();
        let user = homeservers.user_of(server, server, None, ASKER).await;
        assert_eq!(user.unwrap().as_str(), format!("@u:{server}"));
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "{:?}",
            asked.elapsed()
        );
    }
    assert_eq!(hanging.taken(), TURNS);
    let busy = homeservers.stats().busy.load(Ordering::Relaxed);
    assert_eq!(busy as usize, 1000 - QUESTIONS.turns - QUESTIONS.waiting);
}

#[tokio::test]
async fn calls_go_to_the_client_server_api() {
    let mut town = Town::new();
    let api = listen(None, |path: &str| match path {
        "/busy" => Reply::Raw(
            "HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        ),
        "/never" => {
            let body = r#"{"retry_after_ms": 18446744073709551615}"#;
            let head = "HTTP/1.1 429 Slow\r\nContent-Length:";
            Reply::Raw(format!("{head} {}\r\n\r\n{body}", body.len()))
        }
        "/page" => Reply::Raw("HTTP/1.1 502 Bad\r\nContent-Length: 3\r\n\r\n<p>".to_owned()),
        _ => Reply::Json(r#"{"ok": true}"#.to_owned()),
    });
    let api = api.await;
    town.set("homeservers", "a.example=http://127.0.0.1:1");
    town.set("cs_api", &format!("a.example=http://{}", api.address));
    town.host("far.example", &["1.2.3.4"]);
    town.host("api.example", &["1.2.3.5"]);
    let base = r#"{"m.homeserver": {"base_url": "https://api.example:9/m/"}}"#;
    let said = move |_: &str| Reply::Json(base.to_owned());
    town.serve("1.2.3.4:443", &["far.example"], said).await;
    let empty = |_: &str| Reply::Json("{}".to_owned());
    let far = town.serve("1.2.3.5:9", &["api.example"], empty).await;
    let homeservers = town.homeservers();
    let call = |path: &str| Call {
        method: Method::POST,
        path_and_query: path.to_owned(),
        token: Some("secret"),
        body: Some(json!({"x": 1})),
    };
    let answer = homeservers.call("a.example", call("/x")).await.unwrap();
    assert_eq!((answer.status, answer.body), (200, json!({"ok": true})));
    assert_eq!(answer.retry_after, None);
    let seen = &api.seen()[0];
    assert!(
        seen.head.starts_with("POST /x HTTP/1.1\r\n"),
        "{}",
        seen.head
    );
    assert_eq!(seen.header("authorization"), Some("Bearer secret"));
    assert_eq!(seen.header("content-length"), Some("7"));
    for (path, status, wait) in [("/busy", 429, Some(7)), ("/never", 429, Some(3600))] {
        let answer = homeservers.call("a.example", call(path)).await.unwrap();
        let wait = wait.map(Duration::from_secs);
        assert_eq!((answer.status, answer.retry_after), (status, wait));
    }
    let answer = homeservers.call("a.example", call("/page")).await.unwrap();
    assert_eq!((answer.status, answer.body), (502, Value::Null));
    let answer = homeservers.call("far.example", call("/y?z")).await.unwrap();
    assert_eq!((answer.status, answer.body), (200, json!({})));
    let seen = &far.seen()[0];
    assert!(
        seen.head.starts_with("POST /m/y?z HTTP/1.1\r\n"),
        "{}",
        seen.head
    );
    assert_eq!(seen.header("host"), Some("api.example:9"));
    let failed = homeservers.call("nowhere.example", call("/")).await;
    assert_eq!(failed.unwrap_err(), Failed::Unreachable);
}

#[test]
fn pieces_of_paths_hold_nothing_that_means_something() {
    assert_eq!(escaped("aZ9-_~"), "aZ9-_~");
    assert_eq!(escaped("../?&#%é"), "%2E%2E%2F%3F%26%23%25%C3%A9");
}
