//! The tree that the HTML parser builds.
//!
//! Nodes lie in one list and name each other by position, so neither walking nor dropping a tree
//! needs a stack as deep as the tree.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use html5ever::interface::{ElemName, ElementFlags, NodeOrText, QuirksMode, TreeSink};
use html5ever::tendril::{StrTendril, TendrilSink};
use html5ever::{
    Attribute, ExpandedName, ParseOpts, QualName, local_name, ns, parse_document, parse_fragment,
};

/// A parsed page.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

/// One step of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// An element begins.
    Open(&'a str),
    /// Text inside the elements that are open.
    Text(&'a str),
    /// The element that was opened last ends.
    Close(&'a str),
}

#[derive(Debug, Default)]
struct Node {
    kind: Kind,
    parent: Option<usize>,
    before: Option<usize>,
    after: Option<usize>,
    first: Option<usize>,
    last: Option<usize>,
}

#[derive(Debug, Default)]
enum Kind {
    Element(Rc<QualName>),
    Text(String),
    /// The document, a comment or the like.
    #[default]
    Other,
}

impl Tree {
    /// A whole page.
    pub(super) fn of_page(source: &str) -> Self {
        parse_document(Builder::default(), ParseOpts::default()).one(source)
    }

    /// A piece of a page's body.
    pub(super) fn of_fragment(source: &str) -> Self {
        let body = QualName::new(None, ns!(html), local_name!("body"));
        let options = ParseOpts::default();
        parse_fragment(Builder::default(), options, body, Vec::new(), false).one(source)
    }

    /// Visits everything in document order.
    pub(super) fn walk<'a>(&'a self, mut visit: impl FnMut(Step<'a>)) {
        let mut next = self.nodes.first();
        while let Some(node) = next {
            match &node.kind {
                Kind::Element(name) => visit(Step::Open(&name.local)),
                Kind::Text(text) => visit(Step::Text(text)),
                Kind::Other => {}
            }
            if let Some(first) = node.first {
                next = self.nodes.get(first);
                continue;
            }
            let mut ended = Some(node);
            next = None;
            while let Some(node) = ended {
                if let Kind::Element(name) = &node.kind {
                    visit(Step::Close(&name.local));
                }
                if let Some(after) = node.after {
                    next = self.nodes.get(after);
                    break;
                }
                ended = node.parent.and_then(|parent| self.nodes.get(parent));
            }
        }
    }
}

/// A node as the parser knows it.
#[derive(Debug, Clone)]
struct Handle {
    at: usize,
    /// Empty unless it is an element.
    name: Rc<QualName>,
}

impl ElemName for Handle {
    fn ns(&self) -> &html5ever::Namespace {
        &self.name.ns
    }

    fn local_name(&self) -> &html5ever::LocalName {
        &self.name.local
    }

    fn expanded(&self) -> ExpandedName<'_> {
        self.name.expanded()
    }
}

/// Takes what the parser finds. Position 0 is the document.
#[derive(Debug)]
struct Builder {
    nodes: RefCell<Vec<Node>>,
    /// The name of what has none.
    nameless: Rc<QualName>,
}

impl Default for Builder {
    fn default() -> Self {
        let nameless = Rc::new(QualName::new(None, ns!(), local_name!("")));
        Self { nodes: RefCell::new(vec![Node::default()]), nameless }
    }
}

impl Builder {
    fn add(&self, kind: Kind) -> Handle {
        let name = if let Kind::Element(name) = &kind { name } else { &self.nameless };
        let name = Rc::clone(name);
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { kind, ..Node::default() });
        Handle { at: nodes.len() - 1, name }
    }

    /// Puts a node, or text, among the children of `parent`: before `sibling`, or last.
    fn put(&self, parent: usize, sibling: Option<usize>, child: NodeOrText<Handle>) {
        let before = {
            let nodes = self.nodes.borrow();
            sibling.map_or(nodes[parent].last, |sibling| nodes[sibling].before)
        };
        let at = match child {
            NodeOrText::AppendNode(node) => node.at,
            NodeOrText::AppendText(text) => {
                if let Some(before) = before
                    && let Kind::Text(whole) = &mut self.nodes.borrow_mut()[before].kind
                {
                    whole.push_str(&text);
                    return;
                }
                self.add(Kind::Text(text.to_string())).at
            }
        };
        self.cut(at);
        self.link(at, parent, sibling);
    }

    fn link(&self, at: usize, parent: usize, sibling: Option<usize>) {
        let mut nodes = self.nodes.borrow_mut();
        let before = sibling.map_or(nodes[parent].last, |sibling| nodes[sibling].before);
        match sibling {
            Some(sibling) => nodes[sibling].before = Some(at),
            None => nodes[parent].last = Some(at),
        }
        match before {
            Some(before) => nodes[before].after = Some(at),
            None => nodes[parent].first = Some(at),
        }
        let node = &mut nodes[at];
        (node.parent, node.before, node.after) = (Some(parent), before, sibling);
    }

    /// Takes a node away from its parent, if it has one.
    fn cut(&self, at: usize) {
        let mut nodes = self.nodes.borrow_mut();
        let Some(parent) = nodes[at].parent.take() else { return };
        let (before, after) = (nodes[at].before.take(), nodes[at].after.take());
        match before {
            Some(before) => nodes[before].after = after,
            None => nodes[parent].first = after,
        }
        match after {
            Some(after) => nodes[after].before = before,
            None => nodes[parent].last = before,
        }
    }

    fn parent_of(&self, at: usize) -> Option<usize> {
        self.nodes.borrow()[at].parent
    }
}

impl TreeSink for Builder {
    type Handle = Handle;
    type Output = Tree;
    type ElemName<'a> = Handle;

    fn finish(self) -> Tree {
        Tree { nodes: self.nodes.into_inner() }
    }

    fn parse_error(&self, _message: Cow<'static, str>) {}

    fn get_document(&self) -> Handle {
        Handle { at: 0, name: Rc::clone(&self.nameless) }
    }

    fn elem_name<'a>(&'a self, target: &'a Handle) -> Handle {
        target.clone()
    }

    fn create_element(&self, name: QualName, _: Vec<Attribute>, _: ElementFlags) -> Handle {
        self.add(Kind::Element(Rc::new(name)))
    }

    fn create_comment(&self, _text: StrTendril) -> Handle {
        self.add(Kind::Other)
    }

    fn create_pi(&self, _target: StrTendril, _data: StrTendril) -> Handle {
        self.add(Kind::Other)
    }

    fn append(&self, parent: &Handle, child: NodeOrText<Handle>) {
        self.put(parent.at, None, child);
    }

    fn append_based_on_parent_node(
        &self,
        element: &Handle,
        prev_element: &Handle,
        child: NodeOrText<Handle>,
    ) {
        if self.parent_of(element.at).is_some() {
            self.append_before_sibling(element, child);
        } else {
            self.append(prev_element, child);
        }
    }

    fn append_doctype_to_document(&self, _: StrTendril, _: StrTendril, _: StrTendril) {}

    /// The contents of a template are its children here: no browser shows them, and neither do
    /// readers of this tree.
    fn get_template_contents(&self, target: &Handle) -> Handle {
        target.clone()
    }

    fn same_node(&self, x: &Handle, y: &Handle) -> bool {
        x.at == y.at
    }

    fn set_quirks_mode(&self, _mode: QuirksMode) {}

    fn append_before_sibling(&self, sibling: &Handle, new_node: NodeOrText<Handle>) {
        if let NodeOrText::AppendNode(node) = &new_node {
            self.cut(node.at);
        }
        if let Some(parent) = self.parent_of(sibling.at) {
            self.put(parent, Some(sibling.at), new_node);
        }
    }

    fn add_attrs_if_missing(&self, _target: &Handle, _attributes: Vec<Attribute>) {}

    fn remove_from_parent(&self, target: &Handle) {
        self.cut(target.at);
    }

    fn reparent_children(&self, node: &Handle, new_parent: &Handle) {
        loop {
            let Some(first) = self.nodes.borrow()[node.at].first else { return };
            self.cut(first);
            self.link(first, new_parent.at, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(tree: &Tree) -> String {
        let mut text = String::new();
        tree.walk(|step| match step {
            Step::Open(name) => text.extend(["<", name, ">"]),
            Step::Text(words) => text.push_str(words),
            Step::Close(name) => text.extend(["</", name, ">"]),
        });
        text
    }

    #[test]
    fn broken_pages_become_what_a_browser_makes_of_them() {
        for (source, tree) in [
            ("", "<html><head></head><body></body></html>"),
            ("a<!-- x -->b", "<html><head></head><body>ab</body></html>"),
            ("<p>1<p>2", "<html><head></head><body><p>1</p><p>2</p></body></html>"),
            ("<b>1<p>2</b>3", "<html><head></head><body><b>1</b><p><b>2</b>3</p></body></html>"),
            (
                "<table>x<tr><td>y<b>z</table>w",
                "<html><head></head><body>x<table><tbody><tr><td>y<b>z</b></td></tr></tbody>\
                 </table>w</body></html>",
            ),
        ] {
            assert_eq!(steps(&Tree::of_page(source)), tree, "{source}");
        }
        assert_eq!(steps(&Tree::of_fragment("a<td>b</i>")), "<html>ab</html>");
    }
}
