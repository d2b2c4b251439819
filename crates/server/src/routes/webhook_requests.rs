//! The bodies of webhooks.

use arrwdb_engine::state::{Seq, Webhook, WebhookStatus};
use arrwdb_feed::{Reach, Webhooks};
use utoipa::ToSchema;

use crate::json::{Read, Reader};
use crate::limits::{
    WEBHOOK_DELAY_SECONDS_MAX, WEBHOOK_DESCRIPTION_CHARS_MAX, WEBHOOK_EVENTS_MAX,
    WEBHOOK_GRACE_SECONDS, WEBHOOK_GRACE_SECONDS_MAX, WEBHOOK_RETRIES_MAX,
    WEBHOOK_TIMEOUT_SECONDS_MAX,
};

/// A webhook to make.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"url": "https://example.com/hook", "events": ["document.*", "job.completed"]}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct NewWebhook {
    /// `http://` or `https://`. Addresses of private networks are refused unless the server allows
    /// them (`WEBHOOK_ALLOW_PRIVATE`).
    #[schema(format = "uri", max_length = 2048)]
    url: String,
    /// Types of events, families (`document.*`) and `*`.
    #[schema(min_items = 1, max_items = 64)]
    events: Vec<String>,
    #[schema(max_length = 500)]
    description: Option<String>,
    /// Attempts in all for one event; 0 counts as 1.
    #[schema(minimum = 0, maximum = 10, default = 3)]
    max_retries: Option<u32>,
    /// The delay before the second attempt; it doubles each time.
    #[schema(minimum = 1, maximum = 3600, default = 60)]
    retry_delay_seconds: Option<u32>,
    #[schema(minimum = 1, maximum = 120, default = 30)]
    timeout_seconds: Option<u32>,
    /// Whether events of one library may arrive out of order, several at a time.
    #[schema(default = false)]
    parallel: Option<bool>,
}

/// What to change of a webhook; what is absent or null stays.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"max_retries": 5, "status": "active"}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct WebhookPatch {
    #[schema(format = "uri", max_length = 2048)]
    url: Option<String>,
    #[schema(min_items = 1, max_items = 64)]
    events: Option<Vec<String>>,
    #[schema(max_length = 500)]
    description: Option<String>,
    /// `active`, `paused` (what happens meanwhile is sent later) or `disabled`.
    status: Option<String>,
    #[schema(minimum = 0, maximum = 10)]
    max_retries: Option<u32>,
    #[schema(minimum = 1, maximum = 3600)]
    retry_delay_seconds: Option<u32>,
    #[schema(minimum = 1, maximum = 120)]
    timeout_seconds: Option<u32>,
    parallel: Option<bool>,
}

/// How long the secret that was valid stays so.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"grace_seconds": 86400}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct RotateSecret {
    /// Until then, deliveries carry signatures of both.
    #[schema(minimum = 0, maximum = 2_592_000, default = 86400)]
    grace_seconds: Option<u64>,
}

/// Which records to send the events of again.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"from_seq": 1, "to_seq": 100}))]
#[expect(dead_code, reason = "describes the body; it is read field by field")]
pub(super) struct ReplayRange {
    /// From this record on.
    #[schema(minimum = 1)]
    from_seq: u64,
    /// Up to this record; what is not written yet is not waited for.
    #[schema(minimum = 1)]
    to_seq: u64,
}

/// What a body says of a webhook.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) url: Option<String>,
    pub(super) events: Option<Vec<String>>,
    description: Option<String>,
    status: Option<WebhookStatus>,
    max_retries: Option<u32>,
    retry_delay_seconds: Option<u32>,
    timeout_seconds: Option<u32>,
    parallel: Option<bool>,
}

impl Asked {
    /// Changes what is asked for.
    pub(super) fn apply(self, webhook: &mut Webhook) {
        let Self { url, events, description, status, .. } = self;
        set(&mut webhook.url, url);
        set(&mut webhook.events, events);
        set(&mut webhook.status, status);
        set(&mut webhook.max_retries, self.max_retries);
        set(&mut webhook.retry_delay_seconds, self.retry_delay_seconds);
        set(&mut webhook.timeout_seconds, self.timeout_seconds);
        set(&mut webhook.parallel, self.parallel);
        webhook.description = description.or(webhook.description.take());
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

pub(super) fn new_webhook(r: &mut Reader<'_>, reach: Reach) -> Read<Asked> {
    let asked = read(r, reach, false)?;
    let (url, events) = (asked.url.is_some(), asked.events.is_some());
    for (name, present) in [("url", url), ("events", events)] {
        // One that is there and wrong has been said to be.
        let told = r.has_fault_at(name);
        r.require(name, present || told);
    }
    Ok(asked)
}

pub(super) fn patch(r: &mut Reader<'_>, reach: Reach) -> Read<Asked> {
    read(r, reach, true)
}

fn read(r: &mut Reader<'_>, reach: Reach, patch: bool) -> Read<Asked> {
    let mut asked = Asked::default();
    r.object(|r, key| {
        match key {
            "url" => asked.url = read_url(r, reach)?,
            "events" => asked.events = read_events(r)?,
            "description" => asked.description = read_description(r)?,
            "status" if patch => {
                if let Some(name) = r.string()? {
                    asked.status = WebhookStatus::from_name(&name);
                    if asked.status.is_none() {
                        r.fault("must be active, paused or disabled");
                    }
                }
            }
            "max_retries" => asked.max_retries = read_number(r, 0, WEBHOOK_RETRIES_MAX)?,
            "retry_delay_seconds" => {
                asked.retry_delay_seconds = read_number(r, 1, WEBHOOK_DELAY_SECONDS_MAX)?;
            }
            "timeout_seconds" => {
                asked.timeout_seconds = read_number(r, 1, WEBHOOK_TIMEOUT_SECONDS_MAX)?;
            }
            "parallel" => asked.parallel = r.switch()?,
            _other => {}
        }
        Ok(())
    })?;
    Ok(asked)
}

fn read_url(r: &mut Reader<'_>, reach: Reach) -> Read<Option<String>> {
    let Some(text) = r.string()? else { return Ok(None) };
    match reach.read_target(text.trim()) {
        Ok(url) => Ok(Some(url.to_string())),
        Err(error) => {
            r.fault(error.to_string());
            Ok(None)
        }
    }
}

fn read_events(r: &mut Reader<'_>) -> Read<Option<Vec<String>>> {
    let (mut events, mut faulty) = (Vec::new(), false);
    let found = r.array(|r, _index| {
        let Some(name) = r.string()? else {
            faulty = true;
            return Ok(());
        };
        if let Err(error) = Webhooks::check_name(&name) {
            r.fault(error.to_string());
            faulty = true;
        } else if !events.contains(&name) {
            events.push(name);
        }
        Ok(())
    })?;
    if found.is_none() || faulty {
        return Ok(None);
    }
    if events.is_empty() || events.len() > WEBHOOK_EVENTS_MAX {
        r.fault(format!("must name 1 to {WEBHOOK_EVENTS_MAX} types of events"));
        return Ok(None);
    }
    Ok(Some(events))
}

fn read_description(r: &mut Reader<'_>) -> Read<Option<String>> {
    let text = r.string()?;
    let too_long = |text: &String| text.chars().nth(WEBHOOK_DESCRIPTION_CHARS_MAX).is_some();
    if text.as_ref().is_some_and(too_long) {
        r.fault(format!("must have at most {WEBHOOK_DESCRIPTION_CHARS_MAX} characters"));
        return Ok(None);
    }
    Ok(text)
}

fn read_number(r: &mut Reader<'_>, min: u64, max: u64) -> Read<Option<u32>> {
    let Some(number) = r.whole()? else { return Ok(None) };
    if !(min..=max).contains(&number) {
        r.fault(format!("must be a whole number from {min} to {max}"));
    }
    Ok(u32::try_from(number).ok())
}

/// How long the secret before stays valid, in seconds.
pub(super) fn grace(r: &mut Reader<'_>) -> Read<u64> {
    let mut grace = WEBHOOK_GRACE_SECONDS;
    r.object(|r, key| {
        if key == "grace_seconds"
            && let Some(number) = r.whole()?
        {
            grace = number;
            if number > WEBHOOK_GRACE_SECONDS_MAX {
                r.fault(format!("must be a whole number from 0 to {WEBHOOK_GRACE_SECONDS_MAX}"));
            }
        }
        Ok(())
    })?;
    Ok(grace)
}

/// A range of records, of which there are some up to `last`.
pub(super) fn range(r: &mut Reader<'_>, last: Seq) -> Read<(Seq, Seq)> {
    let (mut from, mut to) = (None, None);
    r.object(|r, key| {
        match key {
            "from_seq" => from = r.whole()?,
            "to_seq" => to = r.whole()?,
            _other => {}
        }
        Ok(())
    })?;
    r.require("from_seq", from.is_some());
    r.require("to_seq", to.is_some());
    let (from, to) = (from.unwrap_or(1), to.unwrap_or(u64::MAX));
    if from == 0 {
        r.fault_at("from_seq", "must be at least 1");
    }
    if from > last.get() {
        r.fault_at("from_seq", format!("must not be beyond the last record, {last}"));
    }
    if to < from {
        r.fault_at("to_seq", "must not be less than from_seq");
    }
    Ok((Seq::new(from), Seq::new(to)))
}
