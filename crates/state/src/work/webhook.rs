//! Webhooks: where events are sent to, as the log knows it. How far each is, and what came of every
//! delivery, is not here: that is only observed.

use bytes::Bytes;

use super::job::{read_time_option, write_time_option};
use crate::codec::{DecodeError, Reader, Writer};
use crate::ids::{Seq, TenantId, Timestamp, WebhookId};

/// Whether a webhook is sent anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WebhookStatus {
    /// It is.
    Active,
    /// Not now; what happens meanwhile is sent when it is active again.
    Paused,
    /// No more, until somebody says so.
    Disabled,
}

impl WebhookStatus {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Active, Self::Paused, Self::Disabled];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }

    /// The status of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// A secret that deliveries are signed with, encrypted under the server's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecret {
    /// The encrypted secret.
    pub sealed: Bytes,
    /// It signs until then; the newest signs until there is another.
    pub until: Option<Timestamp>,
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Which one.
    pub id: WebhookId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Where deliveries go.
    pub url: String,
    /// Types of events and families, as they were asked for.
    pub events: Vec<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Whether it is sent anything.
    pub status: WebhookStatus,
    /// Attempts in all, for one delivery; 0 counts as 1.
    pub max_retries: u32,
    /// The delay before the second attempt, of which later ones are multiples.
    pub retry_delay_seconds: u32,
    /// How long an attempt may take.
    pub timeout_seconds: u32,
    /// Whether events of one library may arrive out of order, several at a time.
    pub parallel: bool,
    /// What signs, the newest first.
    pub secrets: Vec<SealedSecret>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// Events after this record are sent.
    pub after: Seq,
}

impl Webhook {
    pub(super) fn write(&self, out: &mut Writer) {
        out.id(self.id.to_bytes());
        out.u64(self.tenant.number());
        out.text(&self.url);
        out.count(self.events.len());
        self.events.iter().for_each(|event| out.text(event));
        out.text_option(self.description.as_deref());
        out.u8(match self.status {
            WebhookStatus::Active => 0,
            WebhookStatus::Paused => 1,
            WebhookStatus::Disabled => 2,
        });
        out.u32(self.max_retries);
        out.u32(self.retry_delay_seconds);
        out.u32(self.timeout_seconds);
        out.u8(u8::from(self.parallel));
        out.count(self.secrets.len());
        for SealedSecret { sealed, until } in &self.secrets {
            out.count(sealed.len());
            out.raw(sealed);
            write_time_option(out, *until);
        }
        out.i64(self.created_at.micros());
        out.i64(self.updated_at.micros());
        out.u64(self.after.get());
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = WebhookId::new(from.uuid("webhook id")?);
        let tenant = TenantId::new(from.u64("tenant")?);
        let url = from.text("url")?.to_owned();
        let events = (0..from.count(4, "events")?)
            .map(|_event| Ok(from.text("event")?.to_owned()))
            .collect::<Result<_, DecodeError>>()?;
        let description = from.text_option("description")?.map(str::to_owned);
        let status = match from.u8("status")? {
            0 => WebhookStatus::Active,
            1 => WebhookStatus::Paused,
            2 => WebhookStatus::Disabled,
            _ => return Err(from.error("a status this build knows")),
        };
        let max_retries = from.u32("retries")?;
        let retry_delay_seconds = from.u32("delay")?;
        let timeout_seconds = from.u32("timeout")?;
        let parallel = from.flag("order")?;
        let mut secrets = Vec::new();
        for _secret in 0..from.count(5, "secrets")? {
            let bytes = from.count(1, "secret")?;
            let sealed = Bytes::copy_from_slice(from.raw(bytes, "secret")?);
            secrets.push(SealedSecret { sealed, until: read_time_option(from)? });
        }
        Ok(Self {
            id,
            tenant,
            url,
            events,
            description,
            status,
            max_retries,
            retry_delay_seconds,
            timeout_seconds,
            parallel,
            secrets,
            created_at: Timestamp::from_micros(from.i64("creation time")?),
            updated_at: Timestamp::from_micros(from.i64("time of change")?),
            after: Seq::new(from.u64("record")?),
        })
    }
}
