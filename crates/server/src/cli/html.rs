//! HTML as one document: the words a browser would show, block by block.

mod tree;

use self::tree::{Step, Tree};
use super::read::Page;

/// Elements open at once that are read; the parser's time grows with the square of the depth.
pub(crate) const DEPTH_MAX: usize = 2_000;

/// About how many elements of `source` are open at once, at most. Elements that may end without
/// an end tag are not counted, so pages written in the old way are not taken for deep ones.
pub(crate) fn depth(source: &str) -> usize {
    const ENDLESS: [&str; 26] = [
        "p", "li", "td", "th", "tr", "dt", "dd", "option", "thead", "tbody", "tfoot", "colgroup",
        "br", "img", "hr", "input", "meta", "link", "col", "area", "base", "source", "wbr",
        "param", "embed", "track",
    ];
    let (mut depth, mut most) = (0_usize, 0);
    for tag in source.split('<').skip(1) {
        let (tag, closes) = tag.strip_prefix('/').map_or((tag, false), |tag| (tag, true));
        let end = tag.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(tag.len());
        let name = tag.get(..end).unwrap_or_default().to_ascii_lowercase();
        if name.is_empty() || ENDLESS.contains(&name.as_str()) {
            continue;
        }
        depth = if closes { depth.saturating_sub(1) } else { depth + 1 };
        most = most.max(depth);
    }
    most
}

/// The text of a whole page; the title is `<title>`, else the first `<h1>`.
pub(crate) fn page(source: &str) -> Page {
    written(&Tree::of_page(source))
}

/// The text of a piece of HTML inside other text; the title is its first heading.
pub(crate) fn fragment(source: &str) -> Page {
    written(&Tree::of_fragment(source))
}

/// Elements whose text no reader of the page's content wants.
const SILENT: [&str; 12] = [
    "script", "style", "noscript", "template", "head", "nav", "svg", "iframe", "select", "button",
    "object", "canvas",
];

/// Elements that run along inside a line.
const INLINE: [&str; 30] = [
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img",
    "ins", "kbd", "label", "mark", "picture", "q", "s", "samp", "small", "span", "strong", "sub",
    "sup", "time", "u", "var",
];

fn written(tree: &Tree) -> Page {
    let mut writer = Writer::default();
    tree.walk(|step| match step {
        Step::Open(name) => writer.open(name),
        Step::Text(text) => writer.words(text),
        Step::Close(name) => writer.close(name),
    });
    let title = named(tree, "title").or_else(|| named(tree, "h1")).or_else(|| named(tree, "h2"));
    Page { title, text: writer.text }
}

/// The words of the first element called `name`, if it has any.
fn named(tree: &Tree, name: &str) -> Option<String> {
    let mut words = String::new();
    let (mut open, mut found) = (0_usize, false);
    tree.walk(|step| match step {
        Step::Open(element) if element == name && !found => open += 1,
        Step::Text(text) if open > 0 => words.push_str(text),
        Step::Close(element) if element == name && open > 0 => {
            open -= 1;
            found = open == 0;
        }
        Step::Open(_) | Step::Text(_) | Step::Close(_) => {}
    });
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    (!words.is_empty()).then_some(words)
}

#[derive(Default)]
struct Writer {
    text: String,
    silent: u32,
    preformatted: u32,
}

impl Writer {
    fn open(&mut self, name: &str) {
        match name {
            "pre" | "textarea" => self.preformatted += 1,
            _ if SILENT.contains(&name) => self.silent += 1,
            _ => {}
        }
        match name {
            "br" => self.text.push('\n'),
            "li" => {
                self.new_line();
                self.text.push_str("- ");
            }
            "td" | "th" if !self.text.is_empty() && !self.text.ends_with('\n') => {
                self.text.push_str(" | ");
            }
            "td" | "th" => {}
            _ => self.edge(name),
        }
    }

    fn close(&mut self, name: &str) {
        match name {
            "pre" | "textarea" => self.preformatted = self.preformatted.saturating_sub(1),
            _ if SILENT.contains(&name) => self.silent = self.silent.saturating_sub(1),
            _ => {}
        }
        if !matches!(name, "br" | "td" | "th") {
            self.edge(name);
        }
    }

    /// The border of an element: nothing for inline ones, a blank line around paragraphs and
    /// headings, a new line around the rest.
    fn edge(&mut self, name: &str) {
        if INLINE.contains(&name) {
            return;
        }
        self.new_line();
        let apart = matches!(
            name,
            "p" | "h1"
                | "h2"
                | "h3"
                | "h4"
                | "h5"
                | "h6"
                | "pre"
                | "table"
                | "blockquote"
                | "ul"
                | "ol"
        );
        if apart && !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    fn words(&mut self, words: &str) {
        if self.silent > 0 {
            return;
        }
        if self.preformatted > 0 {
            self.text.push_str(words);
            return;
        }
        for c in words.chars() {
            if !c.is_whitespace() {
                self.text.push(c);
            } else if !self.text.is_empty() && !self.text.ends_with([' ', '\n']) {
                self.text.push(' ');
            }
        }
    }

    fn new_line(&mut self) {
        while self.text.ends_with(' ') {
            self.text.pop();
        }
        if !self.text.is_empty() && !self.text.ends_with(['\n']) {
            self.text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_shows_is_kept() {
        let page = page(
            "<!doctype html><html><head><title> The\n title </title><style>x{}</style></head><body>\
             <nav>menu</nav><h1>Head</h1><p>One <b>two</b>\n three.</p><ul><li>a</li><li>b</li></ul>\
             <pre>x\n  y</pre><table><tr><td>1</td><td>2</td></tr></table><script>bad()</script></body>",
        );
        assert_eq!(page.title.as_deref(), Some("The title"));
        assert_eq!(page.text.trim(), "Head\n\nOne two three.\n\n- a\n- b\n\nx\n  y\n\n1 | 2");
    }

    #[test]
    fn depth_is_known_before_parsing_and_needs_no_stack() {
        let deep = |depth| format!("{}x{}", "<div>".repeat(depth), "</div>".repeat(depth));
        assert_eq!(depth(&deep(DEPTH_MAX)), DEPTH_MAX);
        assert_eq!(page(&deep(DEPTH_MAX)).text.trim(), "x");
        assert_eq!(depth(&"<p>one<li>two<br>a < b".repeat(100)), 0);
    }
}
