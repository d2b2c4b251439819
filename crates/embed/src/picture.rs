//! Pictures: what a caller may give for one, before any provider is asked.
//!
//! This process never fetches a picture: one is given as the picture itself in a `data:` URL, or as an
//! `http` or `https` URL that is handed to the provider as it is, where the provider fetches them.

use std::fmt;
use std::sync::Arc;

use reqwest::Url;

/// The most bytes of a picture in a `data:` URL, decoded: what the provider of the highest limit takes
/// (Voyage, <https://docs.voyageai.com/docs/multimodal-embeddings>).
pub const PICTURE_BYTES_MAX: usize = 20 << 20;

/// The most bytes of an `http` or `https` URL.
pub const PICTURE_LINK_BYTES_MAX: usize = 8_192;

/// What stands before the base64 of a picture, with room for any media type that is taken.
const HEAD_BYTES_MAX: usize = 64;

/// The most bytes of any URL of a picture.
pub const PICTURE_URL_BYTES_MAX: usize = PICTURE_BYTES_MAX.div_ceil(3) * 4 + HEAD_BYTES_MAX;

/// The media types that every provider takes.
const MEDIA_TYPES: [&str; 4] = ["image/png", "image/jpeg", "image/webp", "image/gif"];

/// A picture to be embedded: itself in a `data:` URL that was checked, or where it is. Its `Debug` shows
/// neither.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Picture(Arc<str>);

/// Why a text is no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PictureFault {
    /// Neither of the two kinds of URL.
    #[error("must be a data: URL with a picture in it, or an http or https URL of one")]
    Url,
    /// A URL that is too long.
    #[error(
        "must have at most {PICTURE_LINK_BYTES_MAX} bytes where it is no data: URL; it has {bytes}"
    )]
    LinkTooLong {
        /// How many it has.
        bytes: usize,
    },
    /// A `data:` URL that is not `data:MEDIA_TYPE;base64,...`.
    #[error("a data: URL of a picture is written data:MEDIA_TYPE;base64,DATA")]
    Form,
    /// Not a media type that is taken.
    #[error("the media type {media_type:?} is not one of {}", MEDIA_TYPES.join(", "))]
    MediaType {
        /// As it was given, cut short.
        media_type: String,
    },
    /// What follows the comma.
    #[error(
        "what follows the comma is not base64 (A to Z, a to z, 0 to 9, + and /, padded with =)"
    )]
    Base64,
    /// Nothing follows the comma.
    #[error("the picture has no bytes")]
    Empty,
    /// More bytes than any provider takes.
    #[error("the picture has {bytes} bytes; the limit is {PICTURE_BYTES_MAX}")]
    TooLarge {
        /// How many it has, decoded.
        bytes: usize,
    },
}

/// Whether a URL holds what it is of in itself.
pub fn is_data_url(url: &str) -> bool {
    url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"))
}

impl Picture {
    /// Checks the URL of a picture. One that is not a `data:` URL stays as it was written.
    pub fn parse(url: String) -> Result<Self, PictureFault> {
        if is_data_url(&url) {
            return Self::of_data(url);
        }
        if url.len() > PICTURE_LINK_BYTES_MAX {
            return Err(PictureFault::LinkTooLong { bytes: url.len() });
        }
        let parsed = Url::parse(&url).map_err(|_not_one| PictureFault::Url)?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(PictureFault::Url);
        }
        Ok(Self(url.into()))
    }

    fn of_data(url: String) -> Result<Self, PictureFault> {
        let (head, data) = url.split_once(',').ok_or(PictureFault::Form)?;
        let head = head.get(5..).unwrap_or_default();
        let (given, encoding) = head.split_once(';').ok_or(PictureFault::Form)?;
        if !encoding.eq_ignore_ascii_case("base64") {
            return Err(PictureFault::Form);
        }
        let media_type = match given.to_ascii_lowercase() {
            // Not registered, and yet written often.
            jpg if jpg == "image/jpg" => "image/jpeg".to_owned(),
            other => other,
        };
        if !MEDIA_TYPES.contains(&media_type.as_str()) {
            let media_type = given.chars().take(HEAD_BYTES_MAX).collect();
            return Err(PictureFault::MediaType { media_type });
        }
        let bytes = decoded_bytes(data).ok_or(PictureFault::Base64)?;
        match bytes {
            0 => return Err(PictureFault::Empty),
            1..=PICTURE_BYTES_MAX => {}
            _ => return Err(PictureFault::TooLarge { bytes }),
        }
        let usual = format!("data:{media_type};base64,");
        Ok(Self(if url.starts_with(&usual) { url.into() } else { (usual + data).into() }))
    }

    /// The URL.
    pub fn url(&self) -> &str {
        &self.0
    }

    /// Bytes of the picture, where it is in the URL itself.
    pub(crate) fn bytes(&self) -> Option<usize> {
        decoded_bytes(data_of(&self.0)?)
    }

    pub(crate) fn into_url(self) -> String {
        self.0.as_ref().to_owned()
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if is_data_url(&self.0) { "data" } else { "link" };
        formatter.debug_struct("Picture").field("kind", &kind).finish_non_exhaustive()
    }
}

/// The base64 in a picture's URL; nothing of one that says where it is.
pub(crate) fn data_of(url: &str) -> Option<&str> {
    let (_head, data) = url.split_once(',').filter(|_| is_data_url(url))?;
    Some(data)
}

/// How many bytes `text` is as base64; nothing if it is not.
fn decoded_bytes(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let padding = bytes.iter().rev().take_while(|&&byte| byte == b'=').count();
    let digits = bytes.get(..bytes.len() - padding).unwrap_or_default();
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let fits = bytes.len().is_multiple_of(4) && padding <= 2 && digits.iter().all(is_digit);
    // More padding than a group has would make less than nothing.
    fits.then(|| bytes.len() / 4 * 3 - padding)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn parse(url: &str) -> Result<String, String> {
        let parsed = Picture::parse(url.to_owned());
        parsed.map(Picture::into_url).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_picture_is_data_or_where_it_is() {
        for url in [
            "data:image/png;base64,iVBORw0KGgo=",
            "http://h/p.png",
            "https://h:8443/a%20b?c=d#e",
            "HTTPS://User:pw@H/",
        ] {
            assert_eq!(parse(url).as_deref(), Ok(url));
        }
        // Written in the usual form for providers that look at the beginning.
        let odd = "DATA:Image/JPG;BASE64,AAAA";
        assert_eq!(parse(odd).as_deref(), Ok("data:image/jpeg;base64,AAAA"));
    }

    #[test]
    fn what_is_no_picture_is_refused_with_the_reason() {
        for (url, part) in [
            ("", "must be a data: URL"),
            ("p.png", "must be a data: URL"),
            ("file:///etc/passwd", "must be a data: URL"),
            ("ftp://h/p.png", "must be a data: URL"),
            ("http:", "must be a data: URL"),
            ("data:", "data:MEDIA_TYPE;base64,DATA"),
            ("data:image/png;base64", "data:MEDIA_TYPE;base64,DATA"),
            ("data:image/png,AAAA", "data:MEDIA_TYPE;base64,DATA"),
            ("data:image/png;charset=x,AAAA", "data:MEDIA_TYPE;base64,DATA"),
            ("data:;base64,AAAA", "\"\" is not one of image/png"),
            ("data:image/svg+xml;base64,AAAA", "\"image/svg+xml\" is not one of"),
            ("data:image/png;base64,", "has no bytes"),
            ("data:image/png;base64,AAA", "not base64"),
            ("data:image/png;base64,AA-_", "not base64"),
            ("data:image/png;base64,AA\nA", "not base64"),
            ("data:image/png;base64,A===", "not base64"),
            ("data:image/png;base64,=AAA", "not base64"),
        ] {
            let fault = parse(url).expect_err(url);
            assert!(fault.contains(part), "{url}: {fault}");
        }
    }

    #[test]
    fn limits_are_of_the_picture_and_of_the_url() {
        let data = |bytes| format!("data:image/png;base64,{}", STANDARD.encode(vec![0; bytes]));
        assert!(parse(&data(PICTURE_BYTES_MAX)).is_ok());
        assert!(data(PICTURE_BYTES_MAX).len() <= PICTURE_URL_BYTES_MAX);
        let fault = parse(&data(PICTURE_BYTES_MAX + 1)).expect_err("too large");
        assert_eq!(fault, "the picture has 20971521 bytes; the limit is 20971520");
        let link = |bytes| format!("http://h/{}", "x".repeat(bytes - 9));
        assert!(parse(&link(PICTURE_LINK_BYTES_MAX)).is_ok());
        let fault = parse(&link(PICTURE_LINK_BYTES_MAX + 1)).expect_err("too long");
        assert!(fault.contains("at most 8192 bytes"), "{fault}");
    }

    #[test]
    fn neither_data_nor_credentials_are_shown() {
        for url in ["data:image/png;base64,aGlkZGVu", "http://user:aGlkZGVu@h/"] {
            let picture = Picture::parse(url.to_owned()).expect("a picture");
            assert!(!format!("{picture:?}").contains("aGlkZGVu"));
        }
    }

    proptest! {
        #[test]
        fn bytes_are_counted_as_a_decoder_counts_them(text in "[A-Za-z0-9+/=_ -]{0,24}") {
            // A decoder is stricter about the unused bits of the last digit, and in nothing else.
            match (decoded_bytes(&text), STANDARD.decode(&text)) {
                (counted, Ok(decoded)) => prop_assert_eq!(counted, Some(decoded.len())),
                (Some(_), Err(base64::DecodeError::InvalidLastSymbol { .. })) | (None, Err(_)) => {}
                (Some(_), Err(error)) => prop_assert!(false, "{text:?}: {error}"),
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}|(data:|http)\\PC{0,40}") {
            let _outcome = Picture::parse(text);
        }
    }
}
