//! Word that the engine closes, for work that takes long.

use tokio::sync::watch;

/// Whether the engine closes. A clone hears it too.
#[derive(Debug, Clone)]
pub(crate) struct Closing(watch::Sender<bool>);

impl Closing {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn begin(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it has begun.
    pub(crate) async fn begun(&self) {
        // There is a sender: this very one.
        drop(self.0.subscribe().wait_for(|closing| *closing).await);
    }
}
