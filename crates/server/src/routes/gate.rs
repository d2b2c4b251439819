//! Writes whose client may leave: what has begun to be written goes to its end and is counted, and
//! nothing else is begun.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Lets writes begin for as long as the client is there.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<State>);

#[derive(Debug, Default)]
struct State {
    inner: Mutex<Inner>,
    closing: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    closed: bool,
    /// Passes that are held.
    writing: usize,
}

/// One write that has begun; held until its outcome is counted.
#[derive(Debug)]
pub(super) struct Pass(Gate);

/// Kept by whoever answers the client; dropping it closes the gate.
#[derive(Debug)]
pub(super) struct Presence(Gate);

impl Gate {
    /// A gate that is open while what is returned with it is kept.
    pub(super) fn new() -> (Self, Presence) {
        let gate = Self::default();
        (gate.clone(), Presence(gate))
    }

    /// To be asked right before something is written. Never returns once the gate is closed.
    pub(super) async fn pass(&self) -> Pass {
        let is_open = {
            let mut inner = self.0.inner.lock();
            inner.writing += usize::from(!inner.closed);
            !inner.closed
        };
        if is_open { Pass(self.clone()) } else { std::future::pending().await }
    }

    /// Lets nothing more begin.
    pub(super) fn close(&self) {
        self.0.inner.lock().closed = true;
        self.0.closing.notify_one();
    }

    /// Whether it lets nothing more begin.
    pub(super) fn is_closed(&self) -> bool {
        self.0.inner.lock().closed
    }

    /// Whether something that has begun is not counted yet.
    pub(super) fn is_writing(&self) -> bool {
        self.0.inner.lock().writing > 0
    }

    /// Waits until it is closed. One waits at a time.
    pub(super) async fn closed(&self) {
        while !self.is_closed() {
            self.0.closing.notified().await;
        }
    }

    /// Does work that passes once before it writes; `None` if the gate was closed before that.
    pub(super) async fn watch<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            done = &mut work => return Some(done),
            () = self.closed() => {}
        }
        if self.is_writing() { Some(work.await) } else { None }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.0.inner.lock().writing -= 1;
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_has_begun_goes_to_its_end_and_nothing_else_begins() {
        let (gate, presence) = Gate::new();
        let (end, ended) = oneshot::channel();
        let begun = gate.watch(async {
            let _pass = gate.pass().await;
            ended.await
        });
        let mut begun = std::pin::pin!(begun);
        assert_eq!(begun.as_mut().now_or_never(), None);
        drop(presence);
        assert_eq!(begun.as_mut().now_or_never(), None, "it writes");
        assert!(gate.pass().now_or_never().is_none());
        end.send(7).expect("somebody waits");
        assert_eq!(begun.await, Some(Ok(7)));
        assert!(!gate.is_writing());
    }

    #[tokio::test]
    async fn what_has_not_begun_is_given_up() {
        let (gate, presence) = Gate::new();
        let (go, going) = oneshot::channel::<()>();
        let work = gate.watch(async {
            going.await.expect("told to");
            let _pass = gate.pass().await;
        });
        let mut work = std::pin::pin!(work);
        assert_eq!(work.as_mut().now_or_never(), None);
        drop(presence);
        assert_eq!(work.await, None);
        drop(go);
    }
}
