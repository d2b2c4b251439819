//! Where deliveries may go: to addresses of the public network, unless the settings say otherwise.
//!
//! A host's name is resolved here and nowhere else, and only addresses that pass are handed to
//! whoever connects, so that a name that means something else a moment later is of no use. Redirects
//! are not followed and no proxy is asked, which would resolve names by itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arrwdb_engine::embed::http::tls_config;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::names::{NameError, Names};

/// How long a connection and its handshake may take; an attempt may have less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection is kept that nothing is sent over.
const IDLE: Duration = Duration::from_secs(90);
/// Connections to one host that are kept.
const IDLE_MAX: usize = 32;
/// Bytes of a target as it is kept, in which what is not ASCII takes more of them.
const URL_BYTES_MAX: usize = 2048;

/// Why something cannot be the target of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is no URL.
    #[error("must be a URL such as https://example.com/hook")]
    Shape,
    /// It is not HTTP.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// It is too long.
    #[error(
        "must have at most {URL_BYTES_MAX} bytes, what is not ASCII in its percent-encoded form"
    )]
    Long,
    /// It holds a name and a password.
    #[error(
        "must not hold a user name or a password: a receiver knows deliveries by their signature"
    )]
    Credentials,
    /// It is an address that is not of the public network.
    #[error(
        "{0} is not an address of the public network; WEBHOOK_ALLOW_PRIVATE=true allows targets on \
         private networks and on this machine"
    )]
    Private(String),
    /// It is a name that has no addresses, or none of the public network: which of these, is nobody's
    /// business who may not go there.
    #[error(
        "{0} leads to no address of the public network: nobody has an address for that name, or \
         those that it has are private (which of these, the server's log says at the level debug); \
         WEBHOOK_ALLOW_PRIVATE=true allows targets on private networks and on this machine"
    )]
    Nowhere(String),
}

/// What may be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Addresses of the public network.
    Public,
    /// Everything: private networks and this machine, too.
    Everywhere,
}

impl Reach {
    fn allows(self, ip: IpAddr) -> bool {
        self == Self::Everywhere || is_public(ip)
    }

    /// Reads the target of a webhook, as far as that can be judged without asking who it is.
    ///
    /// # Errors
    /// It cannot be one.
    pub fn read_target(self, text: &str) -> Result<Url, TargetError> {
        let url = Url::parse(text).map_err(|_not_a_url| TargetError::Shape)?;
        if url.as_str().len() > URL_BYTES_MAX {
            return Err(TargetError::Long);
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(TargetError::Scheme);
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(TargetError::Shape)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Credentials);
        }
        // An address is connected to without anybody who resolves it.
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let local = matches!(host.trim_end_matches('.'), "localhost")
            || host.trim_end_matches('.').ends_with(".localhost");
        let refused = literal.map_or(local && self == Self::Public, |ip| !self.allows(ip));
        if refused {
            return Err(TargetError::Private(host.chars().take(64).collect()));
        }
        Ok(url)
    }
}

/// The client of all deliveries.
pub(super) fn client(reach: Reach, names: Names) -> Result<reqwest::Client, String> {
    let tls = tls_config().map_err(|error| error.to_string())?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent("arrwDB-Webhooks/1.0")
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .dns_resolver(Arc::new(Guard { reach, names }))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_MAX)
        .tcp_nodelay(true)
        .build()
        .map_err(|error| error.to_string())
}

/// Resolves names to what may be connected to.
struct Guard {
    reach: Reach,
    names: Names,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (reach, names) = (self.reach, self.names.clone());
        Box::pin(async move {
            let nowhere = || TargetError::Nowhere(name.as_str().to_owned());
            let found = match names.resolve(name.as_str()).await {
                Err(NameError::Failed(error)) if reach == Reach::Public => {
                    tracing::debug!(name = name.as_str(), %error, "a receiver has no address");
                    return Err(nowhere().into());
                }
                found => found?,
            };
            // The port is the URL's; it is set by whoever connects.
            let allowed = found.iter().filter(|ip| reach.allows(**ip));
            let allowed: Vec<_> = allowed.map(|ip| SocketAddr::new(*ip, 0)).collect();
            if allowed.is_empty() {
                tracing::debug!(name = name.as_str(), "a receiver has private addresses only");
                return Err(nowhere().into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public network, whatever form it is written in.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    // What Azure tells a machine of itself, and of what it may do, lies among public addresses.
    if ip == Ipv4Addr::new(168, 63, 129, 16) {
        return false;
    }
    let [a, b, c, _d] = ip.octets();
    let special = match (a, b, c) {
        // This network, private networks, loopback, multicast and what is reserved.
        (0 | 10 | 127 | 224..=255, _, _)
        | (172, 16..=31, _)
        | (192, 168, _)
        // Link-local, where clouds keep what a machine knows of itself.
        | (169, 254, _)
        // Between a provider and its customers.
        | (100, 64..=127, _)
        // Protocol assignments, documentation, the old relays of 6to4, benchmarks.
        | (192, 0, 0 | 2)
        | (192, 88, 99)
        | (198, 18..=19, _)
        | (198, 51, 100)
        | (203, 0, 113) => true,
        _ => false,
    };
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let v4 = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match ip.segments() {
        // An IPv4 address in other clothes: mapped, translated, translated by a network of its own
        // (whatever is behind that), 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => v4(high, low),
        // Teredo and other protocol assignments, ORCHID, documentation, segment routing.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // All that is given out to the public network; the rest is local, multicast or nobody's.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;
    use std::process::Command;

    use super::super::names::Lookup;
    use super::*;

    const NOT_PUBLIC: &str = "0.0.0.0 10.1.2.3 100.64.0.1 100.127.255.255 127.0.0.1 127.255.0.1 \
        168.63.129.16 ::ffff:168.63.129.16 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.168.1.1 198.18.0.1 \
        198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 :: ::1 \
        ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::10.0.0.1 \
        64:ff9b::7f00:1 64:ff9b:1::8.8.8.8 2002:7f00:1:: 2002:a00:1::1 fe80::1 fec0::1 fc00::1 \
        fd00:ec2::254 ff02::1 2001:db8::1 2001::1 2001:10::1 100::1 3fff::1 5f00::1";
    const PUBLIC: &str = "1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 \
        169.253.1.1 192.0.1.1 198.17.0.1 223.255.255.255 2606:4700::1111 2a00:1450::1 \
        ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1";

    #[test]
    fn only_addresses_of_the_public_network_are_public() {
        for (texts, public) in [(NOT_PUBLIC, false), (PUBLIC, true)] {
            for ip in texts.split_ascii_whitespace() {
                assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
            }
        }
    }

    #[test]
    fn a_target_is_a_public_url() {
        let public = Reach::Public;
        for text in ["https://example.com/a?b=c", "http://8.8.8.8:8080/", "http://[2606:4700::1]/"]
        {
            assert_eq!(public.read_target(text).unwrap().as_str(), text);
        }
        assert_eq!(
            public.read_target("http://example.com").unwrap().as_str(),
            "http://example.com/"
        );
        for text in ["", "example.com", "//example.com", "http://", "http://[::1", "nonsense"] {
            assert_eq!(public.read_target(text), Err(TargetError::Shape), "{text}");
        }
        for text in ["ftp://example.com/", "file:///etc/passwd", "unix:/run/docker.sock"] {
            assert_eq!(public.read_target(text), Err(TargetError::Scheme), "{text}");
        }
        let begin = "http://example.com/";
        let longest = format!("{begin}{}", "a".repeat(2048 - begin.len()));
        assert_eq!(public.read_target(&longest).unwrap().as_str().len(), 2048);
        // What is kept counts, in which each of these is three.
        for rest in ["a".repeat(2048), " ".repeat(1000) + "a"] {
            let long = format!("{begin}{rest}");
            assert_eq!(public.read_target(&long), Err(TargetError::Long));
        }
        for text in ["http://user@example.com/", "https://user:word@8.8.8.8/", "http://:w@a.b/"] {
            for reach in [public, Reach::Everywhere] {
                assert_eq!(reach.read_target(text), Err(TargetError::Credentials), "{text}");
            }
        }
        // The many ways to write one address.
        for text in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://[::ffff:127.0.0.1]/",
            "http://localhost:8000/",
            "http://LOCALHOST./",
            "http://a.localhost/",
            "http://169.254.169.254/latest/meta-data/",
            "http://10.0.0.1/",
            "http://[fd00:ec2::254]/",
            "http://0/",
        ] {
            let refused = public.read_target(text).unwrap_err();
            assert!(matches!(refused, TargetError::Private(_)), "{text}: {refused:?}");
            Reach::Everywhere.read_target(text).unwrap();
        }
    }

    #[tokio::test]
    async fn a_name_that_means_this_machine_leads_nowhere() {
        let resolve = async |reach| {
            let name = "localhost".parse().unwrap();
            let names = Names::new(Lookup::default());
            Guard { reach, names }.resolve(name).await.map(Iterator::count)
        };
        let Err(refused) = resolve(Reach::Public).await else { panic!("it was resolved") };
        assert!(refused.to_string().contains("WEBHOOK_ALLOW_PRIVATE"), "{refused}");
        assert!(resolve(Reach::Everywhere).await.unwrap() > 0);
        // A name that nobody knows reads the same: whether there is one is not told.
        let resolve = async |reach| {
            let names = Names::new(Lookup::new(|_name| Err(std::io::Error::other("unknown"))));
            Guard { reach, names }.resolve("localhost".parse().unwrap()).await.map(Iterator::count)
        };
        let unknown = resolve(Reach::Public).await.unwrap_err();
        assert_eq!(unknown.to_string(), refused.to_string());
        let unknown = resolve(Reach::Everywhere).await.unwrap_err();
        assert!(unknown.to_string().contains("unknown"), "{unknown}");
    }

    /// What is set in the child that the test starts.
    const CHILD: &str = "ARRWDB_TEST_OF_THE_GUARD";
    const PROXIES: [&str; 6] =
        ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

    fn listener() -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    fn is_untouched(listener: &TcpListener) -> bool {
        listener.accept().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    #[test]
    fn what_delivers_asks_no_proxy_and_goes_nowhere_by_a_name_that_leads_here() {
        if std::env::var_os(CHILD).is_some() {
            return deliver_by_name();
        }
        // A proxy is set by the environment, which a process must not change while it runs.
        let proxy = listener();
        let url = format!("http://{}", proxy.local_addr().unwrap());
        let name = std::thread::current().name().unwrap().to_owned();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", &name, "--nocapture"]).env(CHILD, "1").env_remove("NO_PROXY");
        child.env_remove("no_proxy").envs(PROXIES.map(|name| (name, &url)));
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
        assert!(is_untouched(&proxy), "the proxy was asked");
    }

    fn deliver_by_name() {
        let receiver = listener();
        let url = format!("http://hooks.example:{}/", receiver.local_addr().unwrap().port());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let send = |reach| {
            let here = Lookup::new(|_name| Ok(vec![Ipv4Addr::LOCALHOST.into()]));
            let client = client(reach, Names::new(here)).unwrap();
            let request = client.post(&url).timeout(Duration::from_secs(1));
            let answer = runtime.block_on(async { request.send().await });
            let mut error: &dyn std::error::Error = &answer.unwrap_err();
            while let Some(cause) = error.source() {
                error = cause;
            }
            error.to_string()
        };
        let refused = send(Reach::Public);
        assert!(refused.contains("WEBHOOK_ALLOW_PRIVATE"), "{refused}");
        assert!(is_untouched(&receiver), "it was connected to");
        // Where everything may be connected to, the same name leads to the receiver.
        send(Reach::Everywhere);
        assert!(!is_untouched(&receiver));
    }
}
