//! The local model's own thread: computing never blocks the runtime, and never more than one
//! piece is computed at a time.
//!
//! The queue before the thread is short and bounded: what waits, waits in the lane, where queries
//! overtake documents.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tokio::sync::oneshot;

use crate::error::{EmbedError, OpenError};
use crate::models::{ModelSpec, ProviderKind};
use crate::provider::{
    BoxFuture, CallError, InputType, Provider, ProviderAnswer, ProviderLimits, Retry, cut,
};

/// Pieces between the lane and the thread: the one being computed and those whose callers left.
const PIECES_MAX: usize = 4;

/// What the thread computes with.
pub(crate) trait Compute: Send + 'static {
    /// Values per vector, at least 1.
    fn dimension(&self) -> usize;

    /// What the vectors depend on beside the model.
    fn variant(&self) -> &'static str;

    /// The vectors of `texts`, row-major and in order, and the tokens they took.
    fn compute(&mut self, texts: &[&str]) -> Result<(Vec<f32>, u64), String>;
}

/// A provider whose vectors are computed on a thread of its own, which ends with it.
pub(crate) struct ThreadProvider {
    pieces: SyncSender<Piece>,
    limits: ProviderLimits,
    variant: &'static str,
}

struct Piece {
    texts: Vec<String>,
    reply: oneshot::Sender<Result<ProviderAnswer, String>>,
}

impl fmt::Debug for ThreadProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ThreadProvider")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl ThreadProvider {
    pub(crate) fn start(
        compute: impl Compute,
        limits: ProviderLimits,
    ) -> Result<ThreadProvider, OpenError> {
        let variant = compute.variant();
        let (pieces, queue) = sync_channel(PIECES_MAX);
        std::thread::Builder::new()
            .name("embed".to_owned())
            .spawn(move || work(compute, &queue))
            .map_err(OpenError::Thread)?;
        Ok(ThreadProvider { pieces, limits, variant })
    }
}

/// Computes piece by piece until the provider is gone.
fn work(mut compute: impl Compute, queue: &Receiver<Piece>) {
    while let Ok(Piece { texts, reply }) = queue.recv() {
        if reply.is_closed() {
            continue;
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let width = compute.dimension();
        // A text that breaks the model fails its own call; the next one finds the thread alive.
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| compute.compute(&texts)))
            .unwrap_or_else(|_panic| Err("the model panicked".to_owned()))
            .map(|(vectors, tokens)| ProviderAnswer {
                vectors: vectors.chunks(width).map(<[f32]>::to_vec).collect(),
                tokens: Some(tokens),
            });
        if reply.send(outcome).is_err() {
            tracing::trace!("nobody waits for the computed vectors any more");
        }
    }
}

impl Provider for ThreadProvider {
    fn limits(&self) -> ProviderLimits {
        self.limits
    }

    fn variant(&self) -> String {
        self.variant.to_owned()
    }

    fn embed<'a>(
        &'a self,
        model: &'a ModelSpec,
        _input: InputType,
        texts: &'a [String],
    ) -> BoxFuture<'a, Result<ProviderAnswer, CallError>> {
        Box::pin(async move {
            let (reply, receiver) = oneshot::channel();
            self.pieces.try_send(Piece { texts: texts.to_vec(), reply }).map_err(|refused| {
                match refused {
                    // Only pieces whose callers left can fill it; they are skipped in no time.
                    TrySendError::Full(_) => {
                        CallError { error: broken("its queue is full"), retry: Retry::Backoff }
                    }
                    TrySendError::Disconnected(_) => CallError::fatal(gone()),
                }
            })?;
            let outcome = receiver.await.map_err(|_dropped| CallError::fatal(gone()))?;
            let mut answer = outcome
                .map_err(|reason| CallError { error: broken(&reason), retry: Retry::Apart })?;
            for vector in &mut answer.vectors {
                cut(vector, model.dimension);
            }
            Ok(answer)
        })
    }
}

fn broken(reason: &str) -> EmbedError {
    EmbedError::Provider { status: None, detail: format!("the local model failed: {reason}") }
}

fn gone() -> EmbedError {
    let reason = "its thread has ended".to_owned();
    EmbedError::NotConfigured { provider: ProviderKind::Local, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors `[length, 1]`; "panic" and "fail" do that.
    struct Lengths;

    impl Compute for Lengths {
        fn dimension(&self) -> usize {
            2
        }

        fn variant(&self) -> &'static str {
            ""
        }

        fn compute(&mut self, texts: &[&str]) -> Result<(Vec<f32>, u64), String> {
            assert!(!texts.contains(&"panic"), "as the test wants it");
            if texts.contains(&"fail") {
                return Err("no".to_owned());
            }
            let tokens = u64::try_from(texts.len()).expect("few");
            let length = |text: &&str| f32::from(u8::try_from(text.len()).expect("short"));
            Ok((texts.iter().flat_map(|text| [length(text), 1.0]).collect(), tokens))
        }
    }

    fn start() -> ThreadProvider {
        let limits = ProviderLimits {
            texts_per_call: 8,
            tokens_per_call: 8,
            tokens_per_text: 8,
            chars_per_text: None,
            bytes_per_token: 1,
        };
        ThreadProvider::start(Lengths, limits).expect("a thread")
    }

    async fn embed(
        provider: &ThreadProvider,
        dimension: u32,
        texts: &[&str],
    ) -> Result<ProviderAnswer, CallError> {
        let model = ModelSpec { provider: ProviderKind::Local, model: "m".to_owned(), dimension };
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        provider.embed(&model, InputType::Query, &texts).await
    }

    #[tokio::test]
    async fn vectors_come_from_the_thread_in_order() {
        let answer = embed(&start(), 2, &["a", "bcd"]).await.expect("vectors");
        assert_eq!(answer.vectors, [[1.0, 1.0], [3.0, 1.0]]);
        assert_eq!(answer.tokens, Some(2));
    }

    #[tokio::test]
    async fn a_shorter_dimension_is_cut_to_unit_length() {
        let answer = embed(&start(), 1, &["abc"]).await.expect("vectors");
        assert_eq!(answer.vectors, [[1.0]]);
    }

    #[tokio::test]
    async fn a_text_that_breaks_the_model_fails_its_own_call_only() {
        let provider = start();
        for bad in ["panic", "fail"] {
            let failed = embed(&provider, 2, &[bad]).await.expect_err("a failure");
            assert_eq!(failed.retry, Retry::Apart);
            assert!(embed(&provider, 2, &["a"]).await.is_ok());
        }
    }
}
