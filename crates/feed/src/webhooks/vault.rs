//! Secrets of webhooks: made, kept encrypted under a key of the server, signed with.
//!
//! The key lies in a file of its own that is made at the first start, or given. What is in the log
//! and in backups is of no use without it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use arrwdb_engine::state::{SealedSecret, Timestamp, WebhookId};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

const KEY_BYTES: usize = 32;
/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// Why secrets cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key cannot be read or made.
    #[error("the key of webhooks at {} cannot be {doing}: {source}", path.display())]
    Key {
        /// Where.
        path: PathBuf,
        /// `read` or `made`.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// What is there is no key.
    #[error(
        "{} holds no key of webhooks, which is 64 hexadecimal digits: put the right file back, or \
         remove it and rotate the secret of every webhook",
        path.display()
    )]
    NoKey {
        /// Where.
        path: PathBuf,
    },
    /// The operating system gives no randomness, or encryption fails.
    #[error("the operating system gives no randomness")]
    Random,
}

/// The secret of a webhook in plain. It is shown once, and never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// As it is shown to whoever made it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Keeps secrets.
#[derive(Debug)]
pub struct Vault {
    /// Whether the key is new: what was encrypted before cannot be read.
    pub(super) is_new: bool,
    key: LessSafeKey,
    random: SystemRandom,
}

impl Vault {
    /// Reads the key of a file, or makes both.
    ///
    /// # Errors
    /// The file cannot be read or made, or holds something else.
    pub fn open(path: &Path) -> Result<Self, VaultError> {
        let random = SystemRandom::new();
        let failed = |doing| {
            let path = path.to_owned();
            move |source| VaultError::Key { path, doing, source }
        };
        let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let (found, is_new) = match fs::read_to_string(path) {
            Err(error) if is_missing(&error) => {
                let mut key = [0; KEY_BYTES];
                random.fill(&mut key).map_err(|_unspecified| VaultError::Random)?;
                let is_new = make(path, &key).map_err(failed("made"))?;
                // What counts is what is there at the next start.
                (fs::read_to_string(path), is_new)
            }
            found => (found, false),
        };
        let text = found.map_err(|error| {
            let is_no_text = error.kind() == io::ErrorKind::InvalidData;
            let no_key = || VaultError::NoKey { path: path.to_owned() };
            if is_no_text { no_key() } else { failed("read")(error) }
        })?;
        warn_if_open(path);
        let key = parse_key(&text).ok_or_else(|| VaultError::NoKey { path: path.to_owned() })?;
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_unspecified| VaultError::Random)?;
        Ok(Self { is_new, key: LessSafeKey::new(key), random })
    }

    /// A new secret: 64 hexadecimal digits behind the prefix, which clients of the original expect
    /// and which are base64 at the same time, as Standard Webhooks asks for.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn new_secret(&self) -> Result<Secret, VaultError> {
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes).map_err(|_unspecified| VaultError::Random)?;
        Ok(Secret(format!("{PREFIX}{}", hex(&bytes))))
    }

    /// Encrypts the secret of a webhook: it can be read for that one only.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn seal(&self, webhook: WebhookId, secret: &Secret) -> Result<Bytes, VaultError> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_unspecified| VaultError::Random)?;
        let mut text = secret.0.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(webhook.to_bytes()),
                &mut text,
            )
            .map_err(|_unspecified| VaultError::Random)?;
        Ok([&nonce[..], &text].concat().into())
    }

    /// The secret of a webhook; `None` if it was encrypted under another key, or for another one.
    pub fn open_secret(&self, webhook: WebhookId, sealed: &[u8]) -> Option<Secret> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.key.open_in_place(nonce, Aad::from(webhook.to_bytes()), &mut text).ok()?;
        Some(Secret(String::from_utf8(plain.to_vec()).ok()?))
    }

    /// Random bits, for what need not be a secret.
    pub(super) fn random_bits(&self) -> [u8; 10] {
        let mut bits = [0; 10];
        // Without randomness, ids are as unique as their times.
        self.random.fill(&mut bits).unwrap_or_default();
        bits
    }

    /// What signs for a webhook; `None` if not even its newest secret can be read.
    pub(super) fn signer(&self, webhook: WebhookId, secrets: &[SealedSecret]) -> Option<Signer> {
        let newest = self.open_secret(webhook, &secrets.first()?.sealed)?;
        let original = hmac::Key::new(hmac::HMAC_SHA256, newest.0.as_bytes());
        let keys = secrets.iter().filter_map(|SealedSecret { sealed, until }| {
            let secret = self.open_secret(webhook, sealed)?;
            Some((hmac::Key::new(hmac::HMAC_SHA256, &key_of(&secret.0)), *until))
        });
        Some(Signer { keys: keys.collect(), original })
    }
}

/// What a secret stands for.
fn key_of(secret: &str) -> Vec<u8> {
    let encoded = secret.strip_prefix(PREFIX).unwrap_or(secret);
    BASE64.decode(encoded).unwrap_or_else(|_not_base64| encoded.as_bytes().to_vec())
}

/// Signs deliveries of one webhook.
#[derive(Debug)]
pub(super) struct Signer {
    /// Each signs until its time, if it has one.
    keys: Vec<(hmac::Key, Option<Timestamp>)>,
    /// The newest secret, as the original uses it.
    original: hmac::Key,
}

impl Signer {
    /// The value of `webhook-signature`: one signature of each secret that is valid now.
    pub(super) fn sign(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let seconds = (at.micros() / 1_000_000).to_string();
        let valid = self.keys.iter().filter(|(_key, until)| until.is_none_or(|until| at < until));
        let signatures = valid.map(|(key, _until)| {
            let mut context = hmac::Context::with_key(key);
            for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
                context.update(part);
            }
            format!("v1,{}", BASE64.encode(context.sign()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }

    /// The value of `X-Webhook-Signature`.
    pub(super) fn sign_as_original(&self, body: &[u8]) -> String {
        format!("sha256={}", hex(hmac::sign(&self.original, body).as_ref()))
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0x0f)]).collect()
}

fn parse_key(text: &str) -> Option<[u8; KEY_BYTES]> {
    let digits = text.trim().as_bytes();
    let mut key = [0; KEY_BYTES];
    if digits.len() != 2 * KEY_BYTES {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(key)
}

/// Makes the file, whole or not at all; `false` if somebody else has made it meanwhile.
fn make(path: &Path, key: &[u8]) -> io::Result<bool> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    let is_dir_new = !dir.try_exists()?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}.tmp", std::process::id()));
    let unfinished = Path::new(&unfinished);
    match fs::remove_file(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished)?;
    writeln!(file, "{}", hex(key))?;
    file.sync_all()?;
    drop(file);
    // Unlike a new name for the file, a second one takes the place of nobody's key.
    let linked = fs::hard_link(unfinished, path);
    fs::remove_file(unfinished)?;
    let is_new = match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        linked => linked.map(|()| true)?,
    };
    File::open(dir)?.sync_all()?;
    // The directory is as durable as the file.
    if let Some(parent) = dir.parent().filter(|_parent| is_dir_new) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(parent)?.sync_all()?;
    }
    Ok(is_new)
}

/// Who can read the key can read every secret.
fn warn_if_open(path: &Path) {
    let open = fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0);
    if open {
        tracing::warn!(
            "other users of this machine can read the key of webhooks: chmod 600 {}",
            path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> WebhookId {
        WebhookId::from_bytes([n; 16])
    }

    #[test]
    fn a_secret_is_read_under_its_key_and_for_its_webhook_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/webhooks.key");
        let vault = Vault::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let secret = vault.new_secret().unwrap();
        assert_eq!(secret.reveal().len(), 70);
        assert!(!format!("{secret:?}").contains(&secret.reveal()[6..]));
        let sealed = vault.seal(id(1), &secret).unwrap();
        assert!(!sealed.windows(8).any(|part| secret.reveal().as_bytes().starts_with(part)));
        let again = Vault::open(&path).unwrap();
        assert_eq!(again.open_secret(id(1), &sealed).as_ref(), Some(&secret));
        assert_eq!(again.open_secret(id(2), &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert_eq!(again.open_secret(id(1), &changed), None, "byte {at}");
            assert_eq!(again.open_secret(id(1), &sealed[..at]), None, "{at} bytes");
        }
        let other = Vault::open(&dir.path().join("other.key")).unwrap();
        assert_eq!(other.open_secret(id(1), &sealed), None);
    }

    #[test]
    fn a_key_takes_the_place_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/webhooks.key");
        let vault = Vault::open(&path).unwrap();
        assert!(vault.is_new);
        let sealed = vault.seal(id(1), &vault.new_secret().unwrap()).unwrap();
        // One who did not see that there is one.
        assert!(!make(&path, &[7; KEY_BYTES]).unwrap());
        let again = Vault::open(&path).unwrap();
        assert!(!again.is_new && again.open_secret(id(1), &sealed).is_some());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("webhooks.key");
        for text in [&b""[..], b"short", &[b'g'; 64], &[b'0'; 66], &[0xff; 64]] {
            fs::write(&path, text).unwrap();
            let error = Vault::open(&path).unwrap_err();
            assert!(matches!(error, VaultError::NoKey { .. }), "{error}");
        }
        fs::write(&path, [b'a'; 64]).unwrap();
        Vault::open(&path).unwrap();
    }

    #[test]
    fn signatures_are_those_of_the_specification_and_of_the_original() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(&dir.path().join("k")).unwrap();
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let sealed = |secret: &str, until| SealedSecret {
            sealed: vault.seal(id(1), &Secret(secret.to_owned())).unwrap(),
            until,
        };
        // The example of the specification's reference library.
        let newest = sealed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", None);
        let signer = vault.signer(id(1), std::slice::from_ref(&newest)).unwrap();
        let body = br#"{"test": 2432232314}"#;
        let example = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let signed = |signer: &Signer, seconds| {
            signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at(seconds), body)
        };
        assert_eq!(signed(&signer, 1_614_265_330), example);
        // Another that is valid for a while signs beside it, and then no more.
        let older = sealed(&format!("whsec_{}", "ab".repeat(32)), Some(at(1_614_265_331)));
        let signer = vault.signer(id(1), &[newest, older]).unwrap();
        let both = signed(&signer, 1_614_265_330);
        assert!(both.starts_with(&format!("{example} v1,")), "{both}");
        assert_eq!(signed(&signer, 1_614_265_331).split(' ').count(), 1);
        let original = signer.sign_as_original(body);
        assert_eq!(original.len(), 7 + 64);
        assert!(original.starts_with("sha256="));
    }
}
