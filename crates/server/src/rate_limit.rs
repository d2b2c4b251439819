//! Budgets of one client address, counted in fixed windows.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, Method};
use parking_lot::Mutex;

use crate::app::App;
use crate::config::{Rate, RateConfig};
use crate::limits::{RATE_BATCH, RATE_WINDOWS_MAX};
use crate::problem::{self, Problem};

/// What one client may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Budget {
    rate: Rate,
    remaining: u64,
    reset: Duration,
    exceeded: bool,
}

/// One budget: which requests count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Class {
    All,
    Search(&'static str),
    Write,
    Batch,
    Create,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    count: u64,
}

/// Counts requests per address and class.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    config: RateConfig,
    windows: Mutex<HashMap<(IpAddr, Class), Window>>,
}

impl RateLimiter {
    pub(crate) fn new(config: RateConfig) -> Self {
        Self { config, windows: Mutex::new(HashMap::new()) }
    }

    /// Counts one request; the tightest of its budgets.
    fn count(
        &self,
        client: IpAddr,
        method: &Method,
        template: &str,
        now: Instant,
    ) -> Option<Budget> {
        let mut classes = Vec::with_capacity(2);
        if !is_health(template) {
            classes.push((Class::All, self.config.all));
            classes.extend(self.class_of(method, template));
        }
        let mut windows = self.windows.lock();
        if windows.len() >= RATE_WINDOWS_MAX {
            windows.retain(|(_, class), w| now - w.began < self.rate_of(*class).window);
            if windows.len() >= RATE_WINDOWS_MAX {
                windows.clear();
            }
        }
        let budgets = classes.into_iter().map(|(class, rate)| {
            let window = windows.entry((client, class)).or_insert(Window { began: now, count: 0 });
            if now - window.began >= rate.window {
                *window = Window { began: now, count: 0 };
            }
            window.count += 1;
            Budget {
                rate,
                remaining: rate.count.saturating_sub(window.count),
                reset: rate.window.saturating_sub(now - window.began),
                exceeded: window.count > rate.count,
            }
        });
        budgets.min_by_key(|budget| (!budget.exceeded, budget.remaining))
    }

    /// Counts what came otherwise than as a request of its own, by the route it stands for.
    pub(crate) fn check(&self, client: IpAddr, template: &str) -> Result<(), Problem> {
        match self.count(subscriber(client), &Method::POST, template, Instant::now()) {
            Some(budget) if budget.exceeded => Err(refusal(budget)),
            Some(_) | None => Ok(()),
        }
    }

    fn rate_of(&self, class: Class) -> Rate {
        match class {
            Class::All => self.config.all,
            Class::Search(_) => self.config.search,
            Class::Write => self.config.write,
            Class::Batch => RATE_BATCH,
            Class::Create => self.config.create,
        }
    }

    fn class_of(&self, method: &Method, template: &str) -> Option<(Class, Rate)> {
        let route = template.strip_prefix("/v1").unwrap_or(template);
        let class = match (method.as_str(), route) {
            ("POST", "/libraries/{library_id}/search") => Class::Search("search"),
            ("POST", "/libraries/{library_id}/search/embedding") => Class::Search("embedding"),
            ("POST", "/libraries/{library_id}/search/stream") => Class::Search("stream"),
            ("POST", "/libraries/{library_id}/search/filtered") => Class::Search("filtered"),
            ("POST", "/libraries/{library_id}/search/keyword") => Class::Search("keyword"),
            ("POST", "/libraries/{library_id}/search/multi-vector") => {
                Class::Search("multi-vector")
            }
            ("POST", "/libraries/{library_id}/search/hybrid") => Class::Search("hybrid"),
            ("POST", "/libraries/{library_id}/search/rerank") => Class::Search("rerank"),
            ("POST", "/libraries") => Class::Create,
            (
                "POST",
                "/libraries/{library_id}/documents"
                | "/libraries/{library_id}/documents/with-embeddings"
                | "/libraries/{library_id}/documents/multi-vector"
                | "/libraries/{library_id}/documents/stream",
            )
            | (
                "PUT",
                "/libraries/{library_id}/documents/{document_id}"
                | "/libraries/{library_id}/documents/{document_id}/vectors/{vector_id}",
            )
            | (
                "PATCH",
                "/libraries/{library_id}/documents/{document_id}" | "/documents/{document_id}",
            ) => Class::Write,
            (
                "POST",
                "/libraries/{library_id}/documents/batch"
                | "/libraries/{library_id}/documents/batch-with-embeddings",
            )
            | ("DELETE", "/documents/batch") => Class::Batch,
            _ => return None,
        };
        Some((class, self.rate_of(class)))
    }
}

/// Who counts as one client: an address, or the network that one subscriber of IPv6 is given, who
/// could else take a new address for every request.
fn subscriber(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        },
    }
}

fn is_health(template: &str) -> bool {
    matches!(
        template,
        "/health"
            | "/ready"
            | "/v1/ready"
            | "/readiness"
            | "/liveness"
            | "/health/detailed"
            | "/ping"
            | "/healthz"
            | "/livez"
            | "/readyz"
    )
}

/// Refuses a request whose budget is spent, and says what is left of it otherwise.
pub(crate) async fn limit(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(rates) = app.rates() else { return next.run(request).await };
    let client = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let template = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let Some(client) = client.map(subscriber) else { return next.run(request).await };
    let budget = rates.count(client, request.method(), template, Instant::now());
    let mut response = match budget {
        Some(budget) if budget.exceeded => refusal(budget).into_response(),
        Some(_) | None => next.run(request).await,
    };
    if let Some(budget) = budget {
        let headers = response.headers_mut();
        let mut set = |name: &'static str, value: u64| {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        };
        set("x-ratelimit-limit", budget.rate.count);
        set("x-ratelimit-remaining", budget.remaining);
        set("x-ratelimit-reset", budget.reset.as_secs().max(1));
    }
    response
}

fn refusal(budget: Budget) -> Problem {
    let window = match budget.rate.window.as_secs() {
        1 => "1 second",
        60 => "1 minute",
        3600 => "1 hour",
        _ => "1 day",
    };
    let detail = format!("Rate limit exceeded: {} per {window}", budget.rate.count);
    Problem::new(&problem::RATE_LIMITED, detail).retry_after(budget.reset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> RateLimiter {
        let rate = |count| Rate { count, window: Duration::from_mins(1) };
        RateLimiter::new(RateConfig {
            all: rate(5),
            search: rate(2),
            write: rate(3),
            create: rate(1),
        })
    }

    #[test]
    fn each_search_route_has_its_own_budget() {
        let limiter = limiter();
        let client = IpAddr::from([127, 0, 0, 1]);
        let now = Instant::now();
        let exceeded =
            |route: &str, now| limiter.count(client, &Method::POST, route, now).unwrap().exceeded;
        let search = "/v1/libraries/{library_id}/search";
        assert_eq!(
            [exceeded(search, now), exceeded(search, now), exceeded(search, now)],
            [false, false, true]
        );
        assert!(!exceeded("/libraries/{library_id}/search/embedding", now));
        assert!(!exceeded(search, now + Duration::from_mins(1)));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        for (address, client) in [
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::ffff", "2001:db8:1:2::"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(subscriber(address.parse().unwrap()).to_string(), client);
        }
    }

    #[test]
    fn one_budget_covers_all_routes_but_health() {
        let limiter = limiter();
        let client = IpAddr::from([127, 0, 0, 1]);
        let now = Instant::now();
        for _ in 0..5 {
            assert!(!limiter.count(client, &Method::GET, "/", now).unwrap().exceeded);
        }
        assert!(limiter.count(client, &Method::GET, "/", now).unwrap().exceeded);
        assert_eq!(limiter.count(client, &Method::GET, "/health", now), None);
        let other = IpAddr::from([127, 0, 0, 2]);
        assert!(!limiter.count(other, &Method::GET, "/", now).unwrap().exceeded);
    }
}
