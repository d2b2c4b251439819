//! A JSON array of numbers, parsed straight to f32 with correct rounding.
//!
//! One pass over the text: each number is checked against JSON's grammar and handed to a parser
//! that rounds to the nearest f32, so that a vector written in shortest form comes back bit for
//! bit. `NaN`, `Infinity` and `-Infinity`, which some clients write although JSON has no such
//! numbers, and numbers beyond f32 are told apart from broken JSON.

/// Why an array of numbers was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VectorError {
    /// Not JSON; the offset into the text.
    Syntax(usize),
    /// An element that is not a number, by its index.
    NotANumber(usize),
    /// More elements than allowed.
    TooLong,
}

/// A vector and the index of its first element that is not finite.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParsedVector {
    /// The elements.
    pub(crate) values: Vec<f32>,
    /// Index of the first element that is not a finite f32.
    pub(crate) not_finite: Option<usize>,
    /// Bytes of the text that were read.
    pub(crate) bytes: usize,
}

/// Parses the array at the start of `text`, of at most `length_max` elements.
pub(crate) fn parse(text: &[u8], length_max: usize) -> Result<ParsedVector, VectorError> {
    let mut at = 0;
    expect(text, &mut at, b'[')?;
    let mut parsed = ParsedVector { values: Vec::with_capacity(384), not_finite: None, bytes: 0 };
    skip_space(text, &mut at);
    if text.get(at) == Some(&b']') {
        parsed.bytes = at + 1;
        return Ok(parsed);
    }
    loop {
        skip_space(text, &mut at);
        let index = parsed.values.len();
        if index == length_max {
            return Err(VectorError::TooLong);
        }
        let value = number(text, &mut at, index)?;
        if !value.is_finite() && parsed.not_finite.is_none() {
            parsed.not_finite = Some(index);
        }
        parsed.values.push(value);
        skip_space(text, &mut at);
        match text.get(at) {
            Some(b',') => at += 1,
            Some(b']') => {
                parsed.bytes = at + 1;
                return Ok(parsed);
            }
            Some(_) | None => return Err(VectorError::Syntax(at)),
        }
    }
}

fn expect(text: &[u8], at: &mut usize, byte: u8) -> Result<(), VectorError> {
    if text.get(*at) != Some(&byte) {
        return Err(VectorError::Syntax(*at));
    }
    *at += 1;
    Ok(())
}

fn skip_space(text: &[u8], at: &mut usize) {
    while matches!(text.get(*at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        *at += 1;
    }
}

/// Words that are no JSON and yet are sent for numbers that are not finite.
const NOT_FINITE: [(&[u8], f32); 3] =
    [(b"NaN", f32::NAN), (b"Infinity", f32::INFINITY), (b"-Infinity", f32::NEG_INFINITY)];

fn number(text: &[u8], at: &mut usize, index: usize) -> Result<f32, VectorError> {
    let rest = &text[*at..];
    let length = number_length(rest);
    if let Some(length) = length {
        *at += length;
        return fast_float2::parse(&rest[..length]).map_err(|_grammar| VectorError::Syntax(*at));
    }
    for (word, value) in NOT_FINITE {
        if rest.starts_with(word) {
            *at += word.len();
            return Ok(value);
        }
    }
    match rest.first() {
        Some(b'"' | b'{' | b'[' | b't' | b'f' | b'n') => Err(VectorError::NotANumber(index)),
        Some(_) | None => Err(VectorError::Syntax(*at)),
    }
}

/// Length of the JSON number at the start of `text`; `None` if there is none.
#[inline]
fn number_length(text: &[u8]) -> Option<usize> {
    let mut at = usize::from(text.first() == Some(&b'-'));
    match text.get(at)? {
        b'0' => at += 1,
        b'1'..=b'9' => at += digits(&text[at..]),
        _ => return None,
    }
    if text.get(at) == Some(&b'.') {
        let count = digits(&text[at + 1..]);
        if count == 0 {
            return None;
        }
        at += 1 + count;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        let count = digits(&text[at + 1 + sign..]);
        if count == 0 {
            return None;
        }
        at += 1 + sign + count;
    }
    Some(at)
}

#[inline]
fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(text: &str) -> Result<Vec<f32>, VectorError> {
        parse(text.as_bytes(), 16).map(|parsed| parsed.values)
    }

    #[test]
    fn json_numbers_and_nothing_else() {
        assert_eq!(values("[]"), Ok(vec![]));
        assert_eq!(values("[ 1 , -0.5,2e1 ,1E-2]"), Ok(vec![1.0, -0.5, 20.0, 0.01]));
        for text in ["[1,]", "[,1]", "[1", "[+1]", "[.5]", "[1.]", "[01]", "[1e]", "[-]", "[1 2]"] {
            assert!(matches!(values(text), Err(VectorError::Syntax(_))), "{text}");
        }
        for (text, index) in [("[\"1\"]", 0), ("[1,null]", 1), ("[1,2,[3]]", 2)] {
            assert_eq!(values(text), Err(VectorError::NotANumber(index)), "{text}");
        }
        assert_eq!(parse(b"[1,2,3]", 2), Err(VectorError::TooLong));
    }

    #[test]
    fn numbers_that_are_not_finite_are_found_by_index() {
        for (text, index) in [("[1,NaN]", 1), ("[-Infinity]", 0), ("[1,2,1e39]", 2)] {
            assert_eq!(parse(text.as_bytes(), 16).unwrap().not_finite, Some(index), "{text}");
        }
    }

    #[test]
    fn reading_stops_after_the_bracket() {
        assert_eq!(parse(b"[1,2], 3", 16).unwrap().bytes, 5);
    }

    proptest! {
        #[test]
        fn shortest_form_comes_back_bit_for_bit(bits in proptest::collection::vec(any::<u32>(), 0..64)) {
            let floats: Vec<f32> =
                bits.into_iter().map(f32::from_bits).filter(|value| value.is_finite()).collect();
            let text = serde_json::to_string(&floats).unwrap();
            let parsed = parse(text.as_bytes(), 64).unwrap();
            let same = parsed.values.iter().zip(&floats).all(|(a, b)| a.to_bits() == b.to_bits());
            prop_assert!(same && parsed.values.len() == floats.len());
        }

        #[test]
        fn decimals_of_doubles_round_once(value in -1e38_f64..1e38) {
            let parsed = parse(format!("[{value}]").as_bytes(), 1).unwrap();
            // The shortest text of the double, read as f32 directly.
            let oracle: f32 = value.to_string().parse().unwrap();
            prop_assert_eq!(parsed.values[0].to_bits(), oracle.to_bits());
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]0-9eE+.,NaInfty \"-]{0,40}") {
            let _outcome = parse(text.as_bytes(), 8);
        }
    }
}
