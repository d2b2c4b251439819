//! What is read, what is noted, and what is no JSON.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn push(seen: &mut String, name: &str, value: &dyn std::fmt::Debug) {
    write!(seen, "{name}={value:?} ").unwrap();
}

/// Reads `{"s": string, "n": whole, "list": [string], "v": vector}` and says what it saw.
fn read(text: &str) -> Read<(String, Vec<String>)> {
    let mut reader = Reader::new(text.as_bytes())?;
    let mut seen = String::new();
    reader.object(|r, key| {
        match key {
            "s" => push(&mut seen, "s", &r.string()?),
            "n" => push(&mut seen, "n", &r.whole()?),
            "v" => push(&mut seen, "v", &r.vector(4)?),
            "list" => {
                r.array(|r, index| {
                    push(&mut seen, &index.to_string(), &r.string()?);
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    })?;
    let faults = reader.finish()?;
    let faults = faults.iter().map(|f| format!("{} {}", f.pointer, f.detail)).collect();
    Ok((seen.trim_end().to_owned(), faults))
}

#[test]
fn values_are_read_in_place() {
    let (seen, faults) =
        read(r#" {"s":"a\u00e9","n":3.0,"other":{"deep":[1,{"x":null}]},"list":["x"],"v":[1,2]} "#)
            .unwrap();
    assert_eq!(seen, "s=Some(\"a\u{e9}\") n=Some(3) 0=Some(\"x\") v=Some([1.0, 2.0])");
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn null_is_absent() {
    let (seen, faults) = read(r#"{"s":null,"n":null,"list":null,"v":null}"#).unwrap();
    assert_eq!(seen, "s=None n=None v=None");
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn every_fault_is_noted_with_its_pointer() {
    let (_, faults) = read(r#"{"s":1,"n":-2,"list":["x",null,[1]],"v":[1,"x"]}"#).unwrap();
    assert_eq!(
        faults,
        [
            "/s must be a string",
            "/n must be a whole number, not negative",
            "/list/1 must not be null",
            "/list/2 must be a string",
            "/v/1 must be a number",
        ]
    );
    assert_eq!(read("[]").unwrap().1, [" must be an object"]);
}

#[test]
fn broken_json_has_an_offset() {
    for (text, offset) in
        [("", 0), ("{", 1), (r#"{"s" 1}"#, 5), (r#"{"s":1} x"#, 8), (r#"{"s":1,}"#, 7)]
    {
        assert_eq!(read(text).unwrap_err().offset, offset, "{text}");
    }
    // In what is skipped or read whole, too: at the end, or at the byte that is wrong.
    for (text, offset) in
        [("[1,2", 4), ("[1 2]", 3), ("{\"x\":[1,\n2,\n  oh]}", 14), ("{\"x\":{\"y\":tru", 13)]
    {
        assert_eq!(read(text).unwrap_err().offset, offset, "{text}");
    }
    assert!(Reader::new(b"\xff").is_err());
}

#[test]
fn json_that_cannot_be_held_is_a_fault_of_its_field() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for (value, detail) in [
        (r#""a\ud800""#, "cannot be read: unexpected end of hex escape"),
        (r#""\ud800\u0041""#, "cannot be read: lone leading surrogate in hex escape"),
        (r#""\udc00""#, "cannot be read: lone leading surrogate in hex escape"),
        (deep.as_str(), "must be a string"),
    ] {
        let (_, faults) = read(&format!(r#"{{"s":{value},"n":1}}"#)).unwrap();
        assert_eq!(faults, [format!("/s {detail}")], "{value:.20}");
    }
    for (value, detail) in [
        (deep.as_str(), "/any is nested too deeply"),
        ("[1e999]", "/any cannot be read: number out of range"),
        (r#"{"x":"\udfff"}"#, "/any cannot be read: lone leading surrogate in hex escape"),
    ] {
        let text = format!(r#"{{"any":{value}}}"#);
        let mut reader = Reader::new(text.as_bytes()).unwrap();
        reader.object(|r, _key| r.any().map(drop)).unwrap();
        let faults = reader.finish().unwrap();
        assert_eq!(format!("{} {}", faults[0].pointer, faults[0].detail), detail);
    }
}

#[test]
fn a_key_that_is_given_twice_is_a_fault() {
    let (seen, faults) = read(r#"{"s":"a","n":1,"s":"b","other":1,"other":2}"#).unwrap();
    assert_eq!(faults, ["/s is given twice", "/other is given twice"]);
    assert_eq!(seen, "s=Some(\"a\") n=Some(1)");
}

#[test]
fn pointers_are_escaped() {
    let mut pointer = String::new();
    push_token(&mut pointer, "a/b~c");
    assert_eq!(pointer, "/a~1b~0c");
}

proptest! {
    #[test]
    fn typed_values_are_accepted_as_serde_json_accepts_them(
        name in prop::sample::select(vec!["s", "n", "v", "list"]),
        any in r#"[{}\[\]":,0-9a-z\\ .eE+-]{0,16}"#,
        numbers in r"\[[-+0-9.eE, ]{0,12}\]",
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        for value in [any, numbers] {
            let text = format!("{{\"{name}\":{value}}}");
            let oracle: Result<&RawValue, _> = serde_json::from_str(&text);
            prop_assert_eq!(read(&text).is_ok(), oracle.is_ok(), "{}", text);
        }
        prop_assert_eq!(Reader::new(&bytes).is_ok(), std::str::from_utf8(&bytes).is_ok());
    }

    #[test]
    fn accepts_exactly_what_serde_json_accepts(text in r#"[{}\[\]":,0-9a-z\\ .-]{0,24}"#) {
        let text = format!("{{\"x\":{text}}}");
        let oracle: Result<&RawValue, _> = serde_json::from_str(&text);
        prop_assert_eq!(read(&text).is_ok(), oracle.is_ok(), "{}", text);
    }
}
