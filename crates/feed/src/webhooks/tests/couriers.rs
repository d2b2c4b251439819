//! Where a courier goes on, and when it is another.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use arrwdb_engine::EngineError;
use arrwdb_engine::log::memory::{Fault, FaultPlan, When};
use arrwdb_engine::state::{Seq, Webhook, WebhookStatus};
use tokio::runtime::Handle;

use super::super::store_file::Waits;
use super::super::{DeadLetter, Parts, Tempo, Webhooks, WebhooksError};
use super::storing::letter;
use super::support::{Came, Receiver, Site, TENANT, until};

/// Everything at once.
pub(super) fn quick() -> Parts {
    let moment = Duration::from_millis(10);
    let store = Waits { first: moment, longest: moment };
    let tempo = Tempo { flush: moment, flush_idle: moment, again: moment, store };
    Parts { tempo, ..Parts::default() }
}

pub(super) async fn change(hooks: &Webhooks, webhook: &Webhook, change: impl FnOnce(&mut Webhook)) {
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

#[tokio::test]
async fn a_read_that_fails_delays_what_is_delivered_and_no_more() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let receiver = Receiver::start().await;
    let made = site.made(&hooks, (&receiver.url(), &["document.*"]), |_webhook| {}).await;
    let library = site.library().await;
    let mut last = made.after;
    for n in 0..60 {
        last = site.put(library, n).await;
    }
    receiver.until(60).await;
    // The feed keeps the last twenty only: the rest is read.
    site.disk.set_plan(FaultPlan::one(0, Fault::ReadError, ".log", When::Nth(0)));
    hooks.replay(&made, (Seq::new(1), last)).await.unwrap();
    receiver.until(120).await;
    assert_eq!(site.disk.strikes().len(), 1);
    until("it is done", async || hooks.replaying(made.id).is_none().then_some(())).await;
}

#[tokio::test]
async fn one_that_cannot_be_disabled_says_so_and_is_when_it_can() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let receiver = Receiver::start().await;
    let made = site.made(&hooks, (&receiver.url(), &["*"]), |_webhook| {}).await;
    receiver.otherwise(None);
    site.library().await;
    receiver.until(1).await;
    site.disk.set_capacity(Some(0));
    site.engine.check_disk(true).unwrap_err();
    receiver.otherwise(Some((410, "")));
    // The first is not answered in time; the next is, and so are those after it.
    receiver.until(3).await;
    let trouble = until("it says so", async || hooks.obstacle(&made)).await;
    assert!(trouble.contains("free"), "{trouble}");
    site.disk.set_capacity(None);
    site.engine.check_disk(true).unwrap();
    until("it is disabled", async || {
        let (webhooks, _seq) = site.engine.webhooks(None).await.unwrap();
        (webhooks[0].status == WebhookStatus::Disabled).then_some(())
    })
    .await;
    until("it has no courier", async || (hooks.stats().couriers == 0).then_some(())).await;
    assert_eq!(hooks.obstacle(&made), None);
}

#[tokio::test]
async fn one_that_takes_its_leave_keeps_nobody_waiting() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    first.otherwise(None);
    let slow = site.made(&hooks, (&first.url(), &["*"]), |_webhook| {}).await;
    let library = site.library().await;
    first.until(1).await;
    // What is under way is waited for by who takes its place only.
    change(&hooks, &slow, |webhook| webhook.timeout_seconds = 9).await;
    site.made(&hooks, (&second.url(), &["*"]), |_webhook| {}).await;
    site.put(library, 1).await;
    let (quick, slow) = (second.until(1).await[0].at, first.until(2).await[1].at);
    assert!(slow - quick > Duration::from_millis(500), "{:?}", slow - quick);
    hooks.close().await;
}

#[tokio::test]
async fn what_is_made_while_the_list_is_read_is_not_forgotten() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let receiver = Receiver::start().await;
    let shared = &hooks.0;
    let known = shared.store.known();
    let (before, _seq) = site.engine.webhooks(None).await.unwrap();
    let made = site.made(&hooks, (&receiver.url(), &["*"]), |_webhook| {}).await;
    hooks.test(&made).await.unwrap();
    shared.arrange(&before, &known);
    assert_eq!(hooks.figures(made.id).total, 1);
    // One that is gone is forgotten, as soon as nobody is under way to it.
    site.engine.delete_webhook(TENANT, made.id).await.unwrap();
    until("it is forgotten", async || {
        (hooks.figures(made.id).total == 0 && hooks.stats().couriers == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_receiver_that_is_busy_is_left_alone_by_all_libraries() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let receiver = Receiver::start().await;
    let (first, second) = (site.library().await, site.library().await);
    let to = (&*receiver.url(), &["document.*"][..]);
    site.made(&hooks, to, |webhook| webhook.max_retries = 1).await;
    for (status, put) in [(429, 10), (503, 20)] {
        let before = receiver.came().len();
        receiver.next(&[Some((status, "Retry-After: 1\r\n"))]);
        site.put(first, put).await;
        receiver.until(before + 1).await;
        site.put(first, put + 1).await;
        site.put(second, put + 2).await;
        let came = receiver.until(before + 3).await;
        let waited = came[before + 1].at - came[before].at;
        assert!(waited >= Duration::from_millis(950), "{status}: {waited:?}");
    }
    // One that fails otherwise says nothing of the others.
    receiver.next(&[Some((500, "Retry-After: 60\r\n"))]);
    site.put(first, 30).await;
    site.put(second, 31).await;
    receiver.until(8).await;
}

#[tokio::test]
async fn attempts_and_what_was_taken_out_of_order_outlive_changes_and_restarts() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let receiver = Receiver::start().await;
    let (first, second) = (site.library().await, site.library().await);
    let to = (&*receiver.url(), &["document.*"][..]);
    let slow =
        |webhook: &mut Webhook| (webhook.retry_delay_seconds, webhook.max_retries) = (600, 9);
    let made = site.made(&hooks, to, slow).await;
    receiver.next(&[Some((500, ""))]);
    site.put(first, 1).await;
    receiver.until(1).await;
    // The first waits for long; what is of another library does not.
    site.put(second, 2).await;
    site.put(second, 3).await;
    receiver.until(3).await;
    until("they are noted", async || (hooks.figures(made.id).total == 3).then_some(())).await;
    assert_eq!(hooks.stats().retrying, 1, "whoever looks after the server is told that it waits");
    // What changes nothing of a delivery changes nothing of what is under way.
    change(&hooks, &made, |webhook| webhook.description = Some("mine".into())).await;
    hooks.close().await;
    drop(hooks);
    // It goes on as if nothing had been: the waits are over since the webhook was changed, and what
    // was taken is not sent again.
    let hooks = site.hooks_with(quick()).await;
    receiver.next(&[Some((500, ""))]);
    let came = receiver.until(4).await;
    assert_eq!(came[3].title(), "1");
    let second_attempt = until("it is noted", async || {
        let (deliveries, _total) = hooks.deliveries(made.id, (0, 9), None).await.unwrap();
        (deliveries.len() == 4).then(|| deliveries[0].clone())
    })
    .await;
    assert_eq!(second_attempt.attempt_number, 2);
    hooks.close().await;
    drop(hooks);
    // Without a change it waits as long as it was to.
    let hooks = site.hooks_with(quick()).await;
    site.put(second, 4).await;
    let came = receiver.until(5).await;
    assert_eq!(came[4].title(), "4");
    // Another way is tried at once, and it is the third attempt.
    change(&hooks, &made, |webhook| webhook.timeout_seconds = 6).await;
    let came = receiver.until(6).await;
    assert_eq!(came[5].title(), "1");
    let (deliveries, _total) = until("it is noted", async || {
        let found = hooks.deliveries(made.id, (0, 9), None).await.unwrap();
        (found.1 == 6).then_some(found)
    })
    .await;
    assert_eq!(deliveries[0].attempt_number, 3);
    until("all is dealt with", async || {
        (hooks.position(&made).seq() >= site.engine.durable()).then_some(())
    })
    .await;
    assert_eq!(receiver.came().len(), 6);
    assert_eq!(hooks.stats().retrying, 0);
}

#[tokio::test]
async fn a_receiver_that_asked_to_be_left_alone_is_also_after_a_restart() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let receiver = Receiver::start().await;
    let (first, second) = (site.library().await, site.library().await);
    let made = site.made(&hooks, (&receiver.url(), &["document.*"]), |_webhook| {}).await;
    receiver.next(&[Some((503, "Retry-After: 2\r\n"))]);
    site.put(first, 1).await;
    receiver.until(1).await;
    until("it is noted", async || (hooks.figures(made.id).total == 1).then_some(())).await;
    hooks.close().await;
    drop(hooks);
    let hooks = site.hooks_with(quick()).await;
    site.put(second, 2).await;
    let came = receiver.until(3).await;
    assert!(came[1].at - came[0].at >= Duration::from_millis(1900));
    hooks.close().await;
}

#[tokio::test]
async fn what_a_lost_store_knew_is_said_to_be_unknown_once() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let receiver = Receiver::start().await;
    let made = site.made(&hooks, (&receiver.url(), &["document.*"]), |_webhook| {}).await;
    let library = site.library().await;
    let last = site.put(library, 1).await;
    receiver.until(1).await;
    hooks.close().await;
    drop(hooks);
    std::fs::remove_file(site.config().store).unwrap();
    for _start in 0..2 {
        let hooks = site.hooks_with(quick()).await;
        let letters = until("it is said", async || {
            let (letters, _total) = hooks.dead_letters(made.id, (0, 9)).await.unwrap();
            (!letters.is_empty()).then_some(letters)
        })
        .await;
        let missing = letters[0].missing.clone();
        assert_eq!(missing, Some((made.after.to_string(), last.get() + 1)));
        assert_eq!(letters.len(), 1);
        site.put(library, 2).await;
        let count = receiver.came().len();
        receiver.until(count.max(2)).await;
        hooks.close().await;
    }
}

#[tokio::test]
async fn one_request_at_a_time_sends_to_a_webhook() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let receiver = Receiver::start().await;
    let made = site.made(&hooks, (&receiver.url(), &["document.*"]), |_webhook| {}).await;
    let other = site.made(&hooks, (&receiver.url(), &["document.*"]), |_webhook| {}).await;
    receiver.next(&[None]);
    let (testing, webhook) = (hooks.clone(), made.clone());
    let first = tokio::spawn(async move { testing.test(&webhook).await });
    receiver.until(1).await;
    for refused in [hooks.test(&made).await.err(), hooks.redeliver_all(&made).await.err()] {
        assert!(matches!(refused, Some(WebhooksError::Sending)), "{refused:?}");
    }
    hooks.test(&other).await.unwrap();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    hooks.test(&made).await.unwrap();
    assert_eq!(receiver.came().len(), 3);
}

#[tokio::test]
async fn a_letter_without_a_message_stops_no_other() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let receiver = Receiver::start().await;
    let made = site.made(&hooks, (&receiver.url(), &["document.*"]), |_webhook| {}).await;
    let id = made.id.to_string();
    let of_another_release = DeadLetter { event_type: Some("fish.caught".into()), ..letter(&id) };
    for letter in [of_another_release, letter("no id"), letter(&id)] {
        hooks.0.store.bury(made.id, letter);
    }
    let done = hooks.redeliver_all(&made).await.unwrap();
    assert_eq!((done.delivered, done.failed, done.remaining), (1, 0, 2));
}

#[tokio::test]
async fn a_webhook_that_is_changed_while_it_delivers_loses_nothing_and_keeps_the_order() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let receiver = Receiver::start().await;
    let made = site.made(&hooks, (&receiver.url(), &["document.*"]), |_webhook| {}).await;
    let library = site.library().await;
    for n in 0..120 {
        site.put(library, n).await;
        if n % 10 == 0 {
            change(&hooks, &made, |webhook| webhook.timeout_seconds = 5 + u32::from(n)).await;
        }
    }
    until("all is dealt with", async || {
        (hooks.position(&made).seq() >= site.engine.durable()).then_some(())
    })
    .await;
    let mut seen = HashSet::new();
    let came = receiver.came();
    let first = came.iter().filter(|came| seen.insert(came.id.clone()));
    let titles: Vec<_> = first.map(|came| came.title().to_owned()).collect();
    assert_eq!(titles, (0..120).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn events_of_one_library_are_sent_several_at_a_time_where_that_is_wanted() {
    let site = Site::new().await;
    let hooks = site.hooks_with(quick()).await;
    let receiver = Receiver::start().await;
    let to = (&*receiver.url(), &["document.*"][..]);
    let made = site.made(&hooks, to, |webhook| webhook.parallel = true).await;
    let library = site.library().await;
    // The first two hang; those behind them do not wait.
    receiver.next(&[None, None]);
    for n in 0..30 {
        site.put(library, n).await;
    }
    let came = receiver.until(30).await;
    let titles: BTreeSet<_> = came.iter().map(Came::title).collect();
    assert_eq!(titles.len(), 30);
    assert!(hooks.position(&made).seq() < site.engine.durable());
    hooks.close().await;
}
