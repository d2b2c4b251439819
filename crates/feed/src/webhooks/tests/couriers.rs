//! Where a courier goes on, and when it is another.

use std::time::Duration;

use arrwdb_engine::EngineError;
use arrwdb_engine::state::Webhook;

use super::super::{Parts, Tempo, Webhooks};
use super::support::{Receiver, Site, TENANT, until};

/// Everything at once.
fn quick() -> Parts {
    let moment = Duration::from_millis(10);
    Parts {
        tempo: Tempo { flush: moment, flush_idle: moment, ..Tempo::default() },
        ..Parts::default()
    }
}

async fn change(hooks: &Webhooks, webhook: &Webhook, change: impl FnOnce(&mut Webhook)) {
    let change = |webhook: &mut Webhook| {
        change(webhook);
        Ok::<_, EngineError>(())
    };
    hooks.change((TENANT, webhook.id), change).await.unwrap();
}

#[tokio::test]
async fn one_that_wants_rare_events_goes_on_after_what_it_did_not_want() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let receiver = Receiver::start().await;
    let to = (&*receiver.url(), &["library.deleted"][..]);
    let made = site.made(&hooks, to, |_webhook| {}).await;
    let library = site.library().await;
    let mut last = made.after;
    for n in 0..50 {
        last = site.put(library, n).await;
    }
    until("it has seen what it does not want", async || {
        (hooks.position(&made).seq() >= last).then_some(())
    })
    .await;
    change(&hooks, &made, |webhook| webhook.events = vec!["*".into()]).await;
    site.put(library, 77).await;
    let came = receiver.until(1).await;
    assert_eq!((came[0].event_type(), came[0].title()), ("document.added", "77"));
    // It is so after a restart, too.
    change(&hooks, &made, |webhook| webhook.events = vec!["library.deleted".into()]).await;
    for n in 0..50 {
        last = site.put(library, n).await;
    }
    until("it has seen that, too", async || (hooks.position(&made).seq() >= last).then_some(()))
        .await;
    hooks.close().await;
    drop(hooks);
    let hooks = site.hooks_with(quick()).await;
    assert!(hooks.position(&made).seq() >= last);
    assert_eq!(receiver.came().len(), 1);
}
