//! A disk that fails for a while.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrwdb_engine::state::{Seq, WebhookId};
use redb::backends::FileBackend;
use redb::{Database, StorageBackend, TableDefinition};

use super::super::store::{Source, Store};
use super::super::store_file::{Opener, Waits};
use super::super::{DeadLetter, Parts, WebhooksError};
use super::couriers::quick;
use super::support::{Receiver, Site, until};
use crate::event::Position;

/// A file whose writes fail as long as they are told to.
#[derive(Debug)]
struct Faulty(FileBackend, Arc<AtomicBool>);

impl Faulty {
    fn check(&self) -> io::Result<()> {
        let fails = self.1.load(Ordering::SeqCst);
        if fails { Err(io::Error::other("as it was told")) } else { Ok(()) }
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.0.write(offset, data)
    }
}

/// One that opens files whose writes fail as long as the other is set.
pub(super) fn faulty() -> (Opener, Arc<AtomicBool>) {
    let fails = Arc::new(AtomicBool::new(false));
    let told = fails.clone();
    let open = move |path: &Path| {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        Database::builder().create_with_backend(Faulty(FileBackend::new(file)?, told.clone()))
    };
    (Opener::new(open), fails)
}

pub(super) fn letter(event: &str) -> DeadLetter {
    DeadLetter {
        n: 0,
        event_id: Some(event.to_owned()),
        event_type: Some("document.added".to_owned()),
        library_id: None,
        position: None,
        missing: None,
        body: Some("{}".to_owned()),
        attempts: 1,
        failed_at: 1,
        status_code: None,
        error: "it rains".to_owned(),
    }
}

#[test]
fn what_is_noted_while_the_disk_fails_is_written_when_it_does_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deliveries.redb");
    let (opener, fails) = faulty();
    let moment = Duration::from_millis(1);
    let waits = Waits { first: moment, longest: moment };
    let store = Store::open(&path, Seq::new(1), (opener, waits)).unwrap();
    let id = WebhookId::from_bytes([1; 16]);
    store.bury(id, letter("before"));
    store.flush(false).unwrap();
    fails.store(true, Ordering::SeqCst);
    store.bury(id, letter("meanwhile"));
    for _try in 0..3 {
        store.flush(false).unwrap_err();
        assert!(store.outage().is_some());
        std::thread::sleep(2 * moment);
    }
    fails.store(false, Ordering::SeqCst);
    store.bury(id, letter("after"));
    let began = Instant::now();
    while let Err(error) = store.flush(false) {
        assert!(began.elapsed() < Duration::from_secs(20), "{error}");
        std::thread::sleep(moment);
    }
    assert_eq!(store.outage(), None);
    store.close().unwrap();
    // Nobody opens it again who is late.
    store.bury(id, letter("too late"));
    assert!(store.flush(false).unwrap_err().to_string().contains("shutting down"));
    let parts = (Opener::default(), Waits::default());
    let store = Store::open(&path, Seq::new(1), parts).unwrap();
    let (letters, total) = store.dead_letters(id, (0, 9)).unwrap();
    let events: Vec<_> = letters.iter().map(|letter| letter.event_id.as_deref()).collect();
    assert_eq!(events, [Some("after"), Some("meanwhile"), Some("before")]);
    assert_eq!(total, 3);
}

#[tokio::test]
async fn deliveries_go_on_while_their_disk_fails_and_health_says_so() {
    let site = Site::new().await;
    let (opener, fails) = faulty();
    let hooks = site.hooks_with(Parts { opener, ..quick() }).await;
    let receiver = Receiver::start().await;
    let made = site.made(&hooks, (&receiver.url(), &["document.*"]), |_webhook| {}).await;
    let library = site.library().await;
    site.put(library, 1).await;
    receiver.until(1).await;
    assert!(hooks.stats().running);
    fails.store(true, Ordering::SeqCst);
    site.put(library, 2).await;
    receiver.until(2).await;
    until("health says so", async || (!hooks.stats().running).then_some(())).await;
    let refused = hooks.deliveries(made.id, (0, 9), None).await.unwrap_err();
    assert!(matches!(refused, WebhooksError::Store(_)), "{refused}");
    fails.store(false, Ordering::SeqCst);
    until("it works again", async || hooks.stats().running.then_some(())).await;
    let (_deliveries, total) = hooks.deliveries(made.id, (0, 9), None).await.unwrap();
    assert_eq!(total, 2);
}

fn open(path: &Path) -> Store {
    Store::open(path, Seq::new(1), (Opener::default(), Waits::default())).unwrap()
}

fn events(store: &Store, id: WebhookId) -> Vec<String> {
    let (letters, _total) = store.dead_letters(id, (0, 2000)).unwrap();
    letters.into_iter().filter_map(|letter| letter.event_id).collect()
}

#[test]
fn dead_letters_are_bounded_by_number_and_by_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deliveries.redb");
    let store = open(&path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let [many, large] = [1, 2].map(|n| WebhookId::from_bytes([n; 16]));
    for n in 0..1010 {
        store.bury(many, letter(&n.to_string()));
    }
    let body = "x".repeat(1 << 20);
    for n in 0..20 {
        store.bury(large, DeadLetter { body: Some(body.clone()), ..letter(&n.to_string()) });
    }
    let check = |store: &Store| {
        let kept = events(store, many);
        assert_eq!((kept.len(), &*kept[0], &*kept[999]), (1000, "1009", "10"));
        assert_eq!(events(store, large), ["19", "18", "17", "16", "15", "14", "13"]);
        let figures = [many, large].map(|id| store.figures(id));
        assert_eq!(figures.clone().map(|it| it.dead_letters_dropped), [10, 13]);
        assert_eq!(figures.map(|it| it.dead_letters), [1000, 7]);
    };
    check(&store);
    store.close().unwrap();
    drop(store);
    check(&open(&path));
}

#[test]
fn a_row_that_is_damaged_takes_no_list_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deliveries.redb");
    let id = WebhookId::from_bytes([3; 16]);
    let store = open(&path);
    store.bury(id, letter("first"));
    store.bury(id, letter("second"));
    store.moved(id, Source::Live, Position::after(Seq::new(1)), true);
    store.close().unwrap();
    drop(store);
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let rows: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("webhooks");
    let key = u128::from_be_bytes(id.to_bytes());
    transaction.open_table(rows).unwrap().insert(key, &b"{"[..]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let store = open(&path);
    assert_eq!(store.position(id), None);
    store.bury(id, letter("third"));
    assert_eq!(events(&store, id), ["third", "second", "first"]);
}
