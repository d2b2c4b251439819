//! Where a courier goes on, and when it is another.

use std::time::Duration;

use arrwdb_engine::EngineError;
use arrwdb_engine::state::{Webhook, WebhookStatus};
use tokio::runtime::Handle;

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

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_deleted_while_it_is_changed_stays_deleted() {
    let site = Site::new().await;
    let hooks = site.hooks().await;
    let receiver = Receiver::start().await;
    let made = site.made(&hooks, (&receiver.url(), &["*"]), |_webhook| {}).await;
    let engine = site.engine.clone();
    let id = made.id;
    let change = |webhook: &mut Webhook| {
        let deleting = engine.delete_webhook(TENANT, id);
        tokio::task::block_in_place(|| Handle::current().block_on(deleting))?;
        webhook.status = WebhookStatus::Paused;
        Ok::<_, EngineError>(())
    };
    let refused = hooks.change((TENANT, id), change).await.unwrap_err();
    assert!(matches!(refused, EngineError::WebhookNotFound(_)), "{refused}");
    assert!(site.engine.webhooks(None).await.unwrap().0.is_empty());
}
