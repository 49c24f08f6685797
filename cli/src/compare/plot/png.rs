//! SVG to PNG, with the fonts that come along: no font of the machine is asked for, so
//! the picture is the same everywhere.

use std::sync::Arc;

use anyhow::Context as _;
use resvg::{
    tiny_skia::{Pixmap, Transform},
    usvg::{Options, Tree, fontdb::Database},
};

const REGULAR: &[u8] = include_bytes!("../../../fonts/Roboto-Regular.ttf");
const BOLD: &[u8] = include_bytes!("../../../fonts/Roboto-Bold.ttf");

/// Pixels of the PNG for each of the SVG: sharp on screens of today, and in print.
const SCALE: f32 = 2.0;

/// The drawing as PNG.
pub(super) fn png(svg: &str) -> anyhow::Result<Vec<u8>> {
    let mut fonts = Database::new();
    fonts.load_font_data(REGULAR.to_vec());
    fonts.load_font_data(BOLD.to_vec());
    let options = Options { fontdb: Arc::new(fonts), font_family: "Roboto".to_owned(), ..Options::default() };
    let tree = Tree::from_str(svg, &options).context("read the drawing back")?;
    let size = tree.size().to_int_size().scale_by(SCALE).context("size the picture")?;
    let mut pixels = Pixmap::new(size.width(), size.height()).context("make room for the picture")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().context("write the picture as PNG")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::plot::canvas::{Canvas, Style};

    fn dark_pixels(text: &str) -> usize {
        let mut canvas = Canvas::new(120.0, 40.0);
        canvas.text([10.0, 25.0], Style::new(16.0), text);
        let png = png(&canvas.finish()).unwrap();
        let pixels = Pixmap::decode_png(&png).unwrap();
        assert_eq!((pixels.width(), pixels.height()), (240, 80));
        pixels.pixels().iter().filter(|pixel| pixel.red() < 128).count()
    }

    #[test]
    fn text_is_drawn_without_fonts_of_the_machine() {
        assert_eq!(dark_pixels(""), 0);
        assert!(dark_pixels("p95 ≤ 12.5 s × µ") > 100);
    }
}
