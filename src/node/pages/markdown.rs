//! What people write, as Markdown without HTML of its own.

use maud::{Markup, PreEscaped};
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// As HTML that can do no harm, below a heading of this level, 1 to 5. Its own headings are below that, and none skips a level.
pub fn markdown(text: &str, below: usize) -> Markup {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
    let mut last = below;
    let events = Parser::new_ext(text, options).filter_map(move |event| match event {
        Event::Start(Tag::Heading { level, .. }) => {
            last = (below + level as usize).min(last + 1).min(6);
            Some(Event::Start(Tag::Heading { level: at(last), id: None, classes: Vec::new(), attrs: Vec::new() }))
        }
        Event::End(TagEnd::Heading(_)) => Some(Event::End(TagEnd::Heading(at(last)))),
        // Written as it stands: what is HTML there is text here.
        Event::Html(html) | Event::InlineHtml(html) => Some(Event::Text(html)),
        // Pictures of elsewhere are not fetched; what they show is said.
        Event::Start(Tag::Image { .. }) | Event::End(TagEnd::Image) => None,
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            let dest_url = if is_web(&dest_url) { dest_url } else { "#".into() };
            Some(Event::Start(Tag::Link { link_type, dest_url, title, id }))
        }
        other => Some(other),
    });
    let mut out = String::with_capacity(text.len() * 2);
    pulldown_cmark::html::push_html(&mut out, events);
    PreEscaped(out)
}

fn at(level: usize) -> HeadingLevel {
    HeadingLevel::try_from(level).unwrap_or(HeadingLevel::H6)
}

/// Whether it is an address of the web, and no script.
pub fn is_web(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}
