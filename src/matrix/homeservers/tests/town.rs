//! Servers on loopback that pass for homeservers of the internet: real TLS, real HTTP, names and
//! addresses from a book.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::{Config, Matrix, Sources};
use crate::matrix::homeservers::Homeservers;
use crate::matrix::names::{Book, Service};

/// What a server does with a request for a path.
#[derive(Clone)]
pub enum Reply {
    /// 200 and this.
    Json(String),
    /// This, whole.
    Raw(String),
    /// The user that the token in the query names.
    UserInfo,
    /// 200 and bytes, so many of them, or as many as are taken.
    Bytes(usize),
    /// 200 and a byte now and then.
    Drip,
    /// Nothing, ever.
    Silence,
}

/// A request as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Of the TLS handshake.
    pub sni: Option<String>,
    /// Request line and headers.
    pub head: String,
    /// What followed them at once.
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        let wanted = |line: &&str| line.to_lowercase().starts_with(&format!("{name}: "));
        Some(lines.find(wanted)?.split_once(": ")?.1)
    }
}

/// One listening socket.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    /// Connections taken.
    pub taken: Arc<AtomicUsize>,
    /// Bytes of answers that went out.
    pub sent: Arc<AtomicUsize>,
}

/// An authority and those it made certificates for.
pub struct Town {
    authority: CertifiedIssuer<'static, KeyPair>,
    file: std::path::PathBuf,
    pub book: Book,
    pub detours: Vec<(SocketAddr, SocketAddr)>,
    env: Vec<(String, String)>,
}

/// By hand: the feature of rcgen that does it would have half of all crates built once more, as
/// str0m's certificates come from rcgen too.
fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

impl Town {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "town hall");
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let name = format!("stellwerk-ca-{:016x}.pem", fastrand::u64(..));
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, pem(authority.der())).unwrap();
        let mut town = Self {
            authority,
            file,
            book: Book::default(),
            detours: Vec::new(),
            env: Vec::new(),
        };
        town.set("url", "wss://rtc.example");
        town.set("full_access", "*");
        town.set("federation", "true");
        let file = town.file.to_str().unwrap().to_owned();
        town.set("extra_ca", &file);
        town
    }

    /// A parameter of `[matrix]`.
    pub fn set(&mut self, key: &str, value: &str) {
        let name = format!("STELLWERK_MATRIX_{}", key.to_uppercase());
        self.env.retain(|(known, _)| *known != name);
        self.env.push((name, value.to_owned()));
    }

    pub fn config(&self) -> Matrix {
        let sources = Sources {
            dev: true,
            env: self.env.clone(),
            ..Sources::default()
        };
        Config::load(&sources).unwrap().config.matrix
    }

    /// What the daemon makes of it all.
    pub fn homeservers(&self) -> Homeservers {
        let mut homeservers = Homeservers::new(&self.config()).unwrap();
        if let Some(federation) = &mut homeservers.federation {
            let internet = &mut federation.discovery.world;
            internet.names.book = Some(self.book.clone());
            internet.fetcher.detours = self.detours.iter().copied().collect();
        }
        homeservers
    }

    /// Gives a name addresses.
    pub fn host(&mut self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        self.book.addresses.insert(name.to_owned(), addresses);
    }

    /// Announces a service.
    pub fn service(&mut self, name: &str, host: &str, port: u16) {
        let service = Service {
            priority: 1,
            weight: 1,
            port,
            host: host.to_owned(),
        };
        self.book.services.insert(name.to_owned(), vec![service]);
    }

    /// A server at `public`, with a certificate for `names`.
    pub async fn serve(
        &mut self,
        public: &str,
        names: &[&str],
        reply: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let server = listen(Some(self.acceptor(names)), reply).await;
        self.detours.push((public.parse().unwrap(), server.address));
        server
    }

    pub fn acceptor(&self, names: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config).into()
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// A server on loopback, without TLS if there is no `acceptor`.
pub async fn listen(
    acceptor: Option<TlsAcceptor>,
    reply: impl Fn(&str) -> Reply + Send + Sync + 'static,
) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        address: listener.local_addr().unwrap(),
        seen: Arc::default(),
        taken: Arc::default(),
        sent: Arc::default(),
    };
    let (us, reply) = (server.clone(), Arc::new(reply));
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            us.taken.fetch_add(1, Ordering::Relaxed);
            let (us, reply, acceptor) = (us.clone(), Arc::clone(&reply), acceptor.clone());
            tokio::spawn(async move {
                let Some(acceptor) = acceptor else {
                    return us.converse(tcp, None, &*reply).await;
                };
                let Ok(tls) = acceptor.accept(tcp).await else {
                    return;
                };
                let sni = tls.get_ref().1.server_name().map(str::to_owned);
                us.converse(tls, sni, &*reply).await;
            });
        }
    });
    server
}

impl Server {
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    async fn converse(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        sni: Option<String>,
        reply: &(dyn Fn(&str) -> Reply + Send + Sync),
    ) {
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read_buf(&mut request).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let request = String::from_utf8(request).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        self.seen.lock().unwrap().push(Seen {
            sni,
            head: head.to_owned(),
            body: body.to_owned(),
        });
        let _ = self.answer(&mut stream, &path, reply(&path)).await;
    }

    async fn answer(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        path: &str,
        reply: Reply,
    ) -> std::io::Result<()> {
        const HEAD: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
        let text = match reply {
            Reply::Json(body) => json(&body),
            Reply::Raw(text) => text,
            Reply::UserInfo => {
                let token = path.split_once("access_token=").unwrap_or_default().1;
                let token = percent_encoding::percent_decode_str(token);
                json(&format!(r#"{{"sub": "@u:{}"}}"#, token.decode_utf8_lossy()))
            }
            Reply::Bytes(count) => {
                stream.write_all(format!("{HEAD}\r\n").as_bytes()).await?;
                let mut sent = 0;
                while sent < count {
                    stream.write_all(&[b' '; 4096]).await?;
                    sent += 4096;
                    self.sent.fetch_add(4096, Ordering::Relaxed);
                }
                return stream.shutdown().await;
            }
            Reply::Drip => {
                stream.write_all(format!("{HEAD}\r\n").as_bytes()).await?;
                loop {
                    stream.write_all(b" ").await?;
                    stream.flush().await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Reply::Silence => return std::future::pending().await,
        };
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    }
}

fn json(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}
