//! Text that a client gives back as it came: bytes with a checksum, in hexadecimal digits.

/// The bytes as text.
pub(super) fn seal(bytes: &[u8]) -> String {
    let checksum = crc32c::crc32c(bytes).to_le_bytes();
    let digits = bytes.iter().chain(&checksum).map(|byte| format!("{byte:02x}"));
    digits.collect::<Vec<_>>().concat()
}

/// The bytes of a text that [`seal`] made; `None` of any other.
pub(super) fn open(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? * 16 + digit(*low)?),
        _odd => None,
    });
    let mut bytes = pairs.collect::<Option<Vec<u8>>>()?;
    let checksum = bytes.split_off(bytes.len().checked_sub(4)?);
    (crc32c::crc32c(&bytes).to_le_bytes()[..] == checksum[..]).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        for bytes in [&b""[..], b"x", &[0, 255, 7], &[9; 300]] {
            let text = seal(bytes);
            assert_eq!(open(&text).as_deref(), Some(bytes));
            assert_eq!(open(&text[1..]), None);
            assert_eq!(open(&text[2..]), None);
            assert_eq!(open(&format!("{text}00")), None);
            for at in 0..text.len() {
                let mut other = text.clone().into_bytes();
                other[at] = if other[at] == b'0' { b'1' } else { b'0' };
                assert_eq!(open(std::str::from_utf8(&other).unwrap()), None, "{at}");
            }
        }
        for text in ["", "00", "zz", "\u{e4}\u{e4}\u{e4}\u{e4}", "0000000"] {
            assert_eq!(open(text), None, "{text}");
        }
    }
}
