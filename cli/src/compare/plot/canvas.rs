//! An SVG drawing under construction: shapes in the order they are drawn, numbers short,
//! text escaped. What it draws is the charts' business.

use std::fmt::Write as _;

/// Asked for first; the PNG is drawn with it, browsers fall back to what they have.
const FONTS: &str = "Roboto, 'Helvetica Neue', Helvetica, Arial, sans-serif";

/// Of headings and names.
pub(super) const INK: &str = "#1a1a1a";
/// Of everything that explains.
pub(super) const MUTED: &str = "#5f6368";
/// Of lines that guide the eye.
pub(super) const GRID: &str = "#e3e5e8";
/// Behind the time of an incident.
pub(super) const INCIDENT: &str = "#f3ead3";

/// Where a text's position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) size: f64,
    pub(super) bold: bool,
    pub(super) colour: &'static str,
    pub(super) anchor: Anchor,
}

impl Style {
    /// Text of `size`, in ink, from its start.
    pub(super) fn new(size: f64) -> Self {
        Self { size, bold: false, colour: INK, anchor: Anchor::Start }
    }

    pub(super) fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub(super) fn colour(self, colour: &'static str) -> Self {
        Self { colour, ..self }
    }

    pub(super) fn anchor(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stroke {
    pub(super) colour: &'static str,
    pub(super) width: f64,
    /// As SVG writes it; empty for a solid line.
    pub(super) dash: &'static str,
}

impl Stroke {
    pub(super) fn new(colour: &'static str, width: f64) -> Self {
        Self { colour, width, dash: "" }
    }

    pub(super) fn dash(self, dash: &'static str) -> Self {
        Self { dash, ..self }
    }
}

/// The drawing.
#[derive(Debug)]
pub(super) struct Canvas {
    width: f64,
    height: f64,
    body: String,
}

impl Canvas {
    /// An empty white drawing of so many pixels.
    pub(super) fn new(width: f64, height: f64) -> Self {
        let mut canvas = Self { width, height, body: String::new() };
        canvas.rectangle([0.0, 0.0], [width, height], "#ffffff", 1.0);
        canvas
    }

    /// Title and what was measured, at the top left; they need 64 pixels.
    pub(super) fn head(&mut self, title: &str, subtitle: &str) {
        self.text([24.0, 32.0], Style::new(18.0).bold(), title);
        self.text([24.0, 53.0], Style::new(12.5).colour(MUTED), subtitle);
    }

    pub(super) fn rectangle(&mut self, at: [f64; 2], size: [f64; 2], fill: &str, opacity: f64) {
        let (x, y, w, h) = (short(at[0]), short(at[1]), short(size[0]), short(size[1]));
        self.shape(&format!(
            r#"<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="{fill}"{}/>"#,
            faint(opacity)
        ));
    }

    pub(super) fn line(&mut self, from: [f64; 2], to: [f64; 2], stroke: Stroke) {
        self.polyline(&[from, to], stroke);
    }

    /// One line through the points; nothing for fewer than two.
    pub(super) fn polyline(&mut self, points: &[[f64; 2]], stroke: Stroke) {
        if points.len() < 2 {
            return;
        }
        let Stroke { colour, width, dash } = stroke;
        let dash = if dash.is_empty() { String::new() } else { format!(r#" stroke-dasharray="{dash}""#) };
        let shape = format!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="{}" stroke-linejoin="round" stroke-linecap="round"{dash}/>"#,
            joined(points),
            short(width),
        );
        self.shape(&shape);
    }

    pub(super) fn polygon(&mut self, points: &[[f64; 2]], fill: &str, opacity: f64) {
        self.shape(&format!(r#"<polygon points="{}" fill="{fill}"{}/>"#, joined(points), faint(opacity)));
    }

    /// A disc with a white rim, so that neighbours stay apart; `hollow` shows the rim in
    /// the colour instead.
    pub(super) fn dot(&mut self, at: [f64; 2], radius: f64, colour: &str, hollow: bool) {
        let (fill, rim) = if hollow { ("#ffffff", colour) } else { (colour, "#ffffff") };
        self.shape(&format!(
            r#"<circle cx="{}" cy="{}" r="{}" fill="{fill}" stroke="{rim}" stroke-width="1.6"/>"#,
            short(at[0]),
            short(at[1]),
            short(radius),
        ));
    }

    pub(super) fn text(&mut self, at: [f64; 2], style: Style, text: &str) {
        let anchor = match style.anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let weight = if style.bold { r#" font-weight="bold""# } else { "" };
        self.shape(&format!(
            r#"<text x="{}" y="{}" font-size="{}" fill="{}" text-anchor="{anchor}"{weight}>{}</text>"#,
            short(at[0]),
            short(at[1]),
            short(style.size),
            style.colour,
            escaped(text),
        ));
    }

    /// The whole document.
    pub(super) fn finish(self) -> String {
        let (w, h) = (short(self.width), short(self.height));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" \
             font-family=\"{FONTS}\">\n{}</svg>\n",
            self.body
        )
    }

    fn shape(&mut self, shape: &str) {
        self.body.push_str(shape);
        self.body.push('\n');
    }
}

/// How wide a text will be, about: enough to place labels, not to set type.
pub(super) fn width_of(text: &str, size: f64) -> f64 {
    let ems: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '.' | ',' | ':' | '\'' | '|' | ' ' | 'I' | 'f' | 't' | 'r' | '(' | ')' => 0.31,
            'm' | 'w' | 'M' | 'W' | '%' => 0.85,
            'A'..='Z' => 0.64,
            _ => 0.55,
        })
        .sum();
    ems * size
}

/// Two decimals at most, and none that say nothing.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn faint(opacity: f64) -> String {
    if opacity < 1.0 { format!(r#" fill-opacity="{}""#, short(opacity)) } else { String::new() }
}

fn joined(points: &[[f64; 2]]) -> String {
    let mut text = String::new();
    for [x, y] in points {
        if !text.is_empty() {
            text.push(' ');
        }
        // Writing to a string cannot fail.
        write!(text, "{},{}", short(*x), short(*y)).ok();
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_a_file_cannot_break_the_document() {
        let mut canvas = Canvas::new(100.0, 50.0);
        canvas.text([1.0, 2.005], Style::new(12.0), "a<b & \"c\">");
        let text = canvas.finish();
        assert!(text.contains("a&lt;b &amp; \"c\"&gt;"), "{text}");
        assert_eq!(text.matches("<text").count(), 1);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(short(1.0), "1");
        assert_eq!(short(-0.001), "0");
        assert_eq!(short(12.345), "12.35");
        assert_eq!(short(0.5), "0.5");
    }
}
