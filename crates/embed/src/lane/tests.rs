use super::*;
use crate::cache::CacheKey;
use crate::config::CacheConfig;
use crate::models::{ModelSpec, ProviderKind};
use crate::provider::{BoxFuture, CallError, InputType, ProviderAnswer};
use crate::timer::TokioTimer;

/// A provider that never answers, one text at a time.
#[derive(Debug)]
struct Silent;

impl Provider for Silent {
    fn limits(&self) -> ProviderLimits {
        ProviderLimits {
            texts_per_call: 1,
            tokens_per_call: 1_000,
            tokens_per_text: 500,
            chars_per_text: None,
            bytes_per_token: 4,
        }
    }

    fn embed<'a>(
        &'a self,
        _: &'a ModelSpec,
        _: InputType,
        _: &'a [String],
    ) -> BoxFuture<'a, Result<ProviderAnswer, CallError>> {
        Box::pin(std::future::pending())
    }
}

fn lane() -> Lane {
    let nothing = CacheConfig { dir: None, disk_bytes_max: 0, memory_bytes_max: 0 };
    let limits = LaneLimits {
        calls_max: 1,
        queue_texts_max: 10_000,
        batch_window: Duration::ZERO,
        retries_max: 0,
        backoff_min: Duration::ZERO,
        backoff_max: Duration::ZERO,
        call_timeout: None,
    };
    let parts = LaneParts {
        timer: Arc::new(TokioTimer::new()),
        random: Arc::new(|| 0),
        cache: Cache::open(&nothing),
        counters: Arc::default(),
    };
    Lane::new(Arc::new(Silent), limits, parts)
}

fn request(text: &str) -> Request {
    let model = ModelSpec { provider: ProviderKind::Local, model: "m".to_owned(), dimension: 2 };
    Request {
        keys: vec![CacheKey::new(&model, "", InputType::Document, text)],
        model: Arc::new(model),
        input: InputType::Document,
        texts: vec![text.to_owned()],
        deadline: Duration::MAX,
        meter: None,
    }
}

#[test]
fn a_runtime_that_ends_answers_everyone() {
    let lane = lane();
    let builder = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = builder().expect("a runtime");
    // As many that their calls, dropped one within the other, would overflow the stack.
    let replies: Vec<Reply> = runtime.block_on(async {
        let replies = (0..10_000).map(|number| lane.submit(request(&number.to_string()))).collect();
        tokio::task::yield_now().await;
        replies
    });
    drop(runtime);
    let runtime = builder().expect("a runtime");
    let refused = runtime.block_on(async {
        let mut refused = 0;
        for reply in replies {
            match reply.vectors().await {
                Err(EmbedError::Closed) => refused += 1,
                other => assert!(matches!(other, Err(EmbedError::Provider { .. })), "{other:?}"),
            }
        }
        refused
    });
    assert_eq!(refused, 9_999);
}
