//! What happened is sent again, as long as it is wanted.

use std::sync::atomic::Ordering;

use arrwdb_engine::state::{Seq, WebhookStatus};

use super::super::{Parts, WebhooksError};
use super::couriers::{change, quick};
use super::storing::faulty;
use super::support::{Receiver, Site, until};

#[tokio::test]
async fn a_replay_that_is_cancelled_ends_and_the_next_begins_anew() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let receiver = Receiver::start().await;
    let to = (&*receiver.url(), &["document.*"][..]);
    let made = site.made(&hooks, to, |webhook| webhook.timeout_seconds = 60).await;
    let library = site.library().await;
    let mut last = made.after;
    for n in 0..9 {
        last = site.put(library, n).await;
    }
    receiver.until(9).await;
    let error = hooks.cancel_replay(made.id).await.unwrap_err();
    assert!(matches!(error, WebhooksError::NoReplay), "{error}");
    // Three are taken, the next hangs.
    receiver.next(&[Some((204, "")); 3]);
    receiver.otherwise(None);
    hooks.replay(&made, (Seq::new(1), last)).await.unwrap();
    receiver.until(13).await;
    let error = hooks.replay(&made, (Seq::new(1), last)).await.unwrap_err();
    assert!(matches!(error, WebhooksError::Replaying { .. }), "{error}");
    hooks.cancel_replay(made.id).await.unwrap();
    assert_eq!(hooks.replaying(made.id), None);
    receiver.otherwise(Some((204, "")));
    // What the first notes when it ends is nothing to the second.
    hooks.replay(&made, (Seq::new(1), last)).await.unwrap();
    let came = receiver.until(22).await;
    let titles: Vec<_> = came[13..].iter().map(|came| came.title().to_owned()).collect();
    assert_eq!(titles, (0..9).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(came[13].id, came[0].id);
    until("it is done", async || hooks.replaying(made.id).is_none().then_some(())).await;
}

#[tokio::test]
async fn a_replay_begins_for_an_active_webhook_once_it_is_written_down() {
    let site = Site::new().await;
    let (opener, fails) = faulty();
    let hooks = site.hooks_with(Parts { opener, ..quick() }).await;
    let receiver = Receiver::start().await;
    let made = site.made(&hooks, (&receiver.url(), &["document.*"]), |_webhook| {}).await;
    let library = site.library().await;
    let last = site.put(library, 1).await;
    receiver.until(1).await;
    let range = (Seq::new(1), last);
    fails.store(true, Ordering::SeqCst);
    hooks.replay(&made, range).await.unwrap_err();
    assert_eq!(hooks.replaying(made.id), None);
    fails.store(false, Ordering::SeqCst);
    until("it works again", async || hooks.stats().running.then_some(())).await;
    assert_eq!(hooks.replaying(made.id), None);
    change(&hooks, &made, |webhook| webhook.status = WebhookStatus::Paused).await;
    let (webhooks, _seq) = site.engine.webhooks(None).await.unwrap();
    let error = hooks.replay(&webhooks[0], range).await.unwrap_err();
    assert!(error.to_string().contains("paused"), "{error}");
}
