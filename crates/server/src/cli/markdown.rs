//! Markdown as one document: the words a reader sees, without front matter, markup and badges.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::html;
use super::read::Page;

/// Renders `source` to readable text; the title is the front matter's, else the first heading.
pub(crate) fn page(source: &str) -> Page {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS
        | Options::ENABLE_PLUSES_DELIMITED_METADATA_BLOCKS;
    let mut writer = Writer::default();
    for event in Parser::new_ext(source, options) {
        writer.event(event);
    }
    Page { title: writer.front_title.or(writer.heading), text: writer.text }
}

#[derive(Default)]
struct Writer {
    text: String,
    front_title: Option<String>,
    heading: Option<String>,
    /// Where the text of the heading being read begins.
    heading_start: Option<usize>,
    /// The next number of each open list, `None` for bullets.
    lists: Vec<Option<u64>>,
    links: u32,
    /// Open images whose text is decoration.
    badges: u32,
    images: u32,
    front: bool,
    /// The HTML block being read.
    html: Option<String>,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(end) => self.end(end),
            Event::Text(text) if self.front => self.front_matter(&text),
            Event::Text(text)
            | Event::Code(text)
            | Event::InlineMath(text)
            | Event::DisplayMath(text) => self.words(&text),
            Event::Html(html) => match &mut self.html {
                Some(block) => block.push_str(&html),
                None => self.words(&html),
            },
            Event::InlineHtml(html) => {
                if html.to_ascii_lowercase().starts_with("<br") {
                    self.text.push('\n');
                }
            }
            Event::SoftBreak => self.words(" "),
            Event::HardBreak => self.words("\n"),
            Event::Rule => self.blank_line(),
            Event::TaskListMarker(done) => self.words(if done { "[x] " } else { "[ ] " }),
            Event::FootnoteReference(_) => {}
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Paragraph if self.lists.is_empty() => self.blank_line(),
            Tag::Heading { .. } => {
                self.blank_line();
                self.heading_start = Some(self.text.len());
            }
            Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented)
            | Tag::BlockQuote(_)
            | Tag::Table(_) => self.blank_line(),
            Tag::HtmlBlock => self.html = Some(String::new()),
            Tag::List(first) => {
                if self.lists.is_empty() {
                    self.blank_line();
                }
                self.lists.push(*first);
            }
            Tag::Item => self.bullet(),
            Tag::TableCell if !self.text.is_empty() && !self.text.ends_with('\n') => {
                self.text.push_str(" | ");
            }
            Tag::Link { .. } => self.links += 1,
            Tag::Image { dest_url, .. } => {
                self.images += 1;
                let url = dest_url.to_ascii_lowercase();
                let badge = self.links > 0 || url.contains("badge") || url.contains("shields.io");
                if badge || self.badges > 0 {
                    self.badges += 1;
                }
            }
            Tag::MetadataBlock(_) => self.front = true,
            Tag::Paragraph
            | Tag::FootnoteDefinition(_)
            | Tag::DefinitionList
            | Tag::DefinitionListTitle
            | Tag::DefinitionListDefinition
            | Tag::TableHead
            | Tag::TableRow
            | Tag::TableCell
            | Tag::Emphasis
            | Tag::Strong
            | Tag::Strikethrough
            | Tag::Superscript
            | Tag::Subscript => {}
        }
    }

    fn end(&mut self, end: TagEnd) {
        match end {
            TagEnd::Heading(_) => {
                let words = self.heading_start.take().and_then(|start| self.text.get(start..));
                let words = words.unwrap_or_default().trim().to_owned();
                if self.heading.is_none() && !words.is_empty() {
                    self.heading = Some(words);
                }
                self.blank_line();
            }
            TagEnd::Paragraph if self.lists.is_empty() => self.blank_line(),
            TagEnd::CodeBlock | TagEnd::Table | TagEnd::BlockQuote(_) => self.blank_line(),
            TagEnd::TableHead | TagEnd::TableRow | TagEnd::Paragraph | TagEnd::Item => {
                self.new_line();
            }
            TagEnd::HtmlBlock => {
                let page = html::fragment(&self.html.take().unwrap_or_default());
                let words = page.text.trim();
                if !words.is_empty() {
                    self.blank_line();
                    self.text.push_str(words);
                    self.blank_line();
                }
                if self.heading.is_none() {
                    self.heading = page.title;
                }
            }
            TagEnd::List(_) => {
                self.lists.pop();
                if self.lists.is_empty() {
                    self.blank_line();
                }
            }
            TagEnd::Link => self.links = self.links.saturating_sub(1),
            TagEnd::Image => {
                self.images = self.images.saturating_sub(1);
                self.badges = self.badges.saturating_sub(1);
            }
            TagEnd::MetadataBlock(_) => self.front = false,
            TagEnd::FootnoteDefinition
            | TagEnd::DefinitionList
            | TagEnd::DefinitionListTitle
            | TagEnd::DefinitionListDefinition
            | TagEnd::TableCell
            | TagEnd::Emphasis
            | TagEnd::Strong
            | TagEnd::Strikethrough
            | TagEnd::Superscript
            | TagEnd::Subscript => {}
        }
    }

    fn bullet(&mut self) {
        self.new_line();
        self.text.push_str(&"  ".repeat(self.lists.len().saturating_sub(1)));
        match self.lists.last_mut() {
            Some(Some(number)) => {
                self.text.extend([&number.to_string(), ". "]);
                *number += 1;
            }
            Some(None) | None => self.text.push_str("- "),
        }
    }

    fn words(&mut self, words: &str) {
        if self.badges == 0 {
            self.text.push_str(words);
        }
    }

    fn front_matter(&mut self, front: &str) {
        for line in front.lines() {
            let Some((key, value)) = line.split_once([':', '=']) else { continue };
            let value = value.trim().trim_matches(['"', '\'']).trim();
            if key.trim() == "title" && !value.is_empty() {
                self.front_title = Some(value.to_owned());
            }
        }
    }

    fn new_line(&mut self) {
        while self.text.ends_with(' ') {
            self.text.pop();
        }
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
    }

    fn blank_line(&mut self) {
        self.new_line();
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, title: Option<&str>, text: &str) {
        let page = page(source);
        assert_eq!((page.title.as_deref(), page.text.trim()), (title, text), "{source:?}");
    }

    #[test]
    fn what_a_reader_sees_is_kept() {
        check(
            "# The *title*\n\nOne\ntwo [three](http://x) `four`.\n\n- a\n- b\n  1. c\n  2. d\n\nend",
            Some("The title"),
            "The title\n\nOne two three four.\n\n- a\n- b\n  1. c\n  2. d\n\nend",
        );
        check("```rust\nlet a = 1;\n\nlet b;\n```\n", None, "let a = 1;\n\nlet b;");
        check("| a | b |\n|---|---|\n| 1 | 2 |\n", None, "a | b\n1 | 2");
    }

    #[test]
    fn front_matter_is_stripped_and_its_title_wins() {
        check(
            "---\ntitle: \"Front\"\ntags: [a]\n---\n# Heading\n\nText",
            Some("Front"),
            "Heading\n\nText",
        );
        check("+++\ntitle = 'Front'\n+++\nText", Some("Front"), "Text");
    }

    #[test]
    fn badges_are_left_out_and_pictures_keep_their_words() {
        check(
            "[![Build](https://x/b.svg)](https://x)\n![ci](https://img.shields.io/a)\n\nA ![small cat](cat.png) here",
            None,
            "A small cat here",
        );
    }

    #[test]
    fn a_heading_in_html_is_a_title() {
        check("<h1 align=\"center\">\n Name\n</h1>\n\ntext", Some("Name"), "Name\n\ntext");
    }
}
