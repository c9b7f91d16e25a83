//! The text of a terminal as a picture, for the pages. The end-to-end tests draw the demo with it.

/// A terminal's text as a picture.
pub fn svg(text: &str) -> String {
    const WIDE: usize = 8;
    const HIGH: usize = 18;
    let columns = text.lines().map(|line| line.chars().count()).max();
    let (width, height) = (
        columns.unwrap_or_default() * WIDE + 32,
        text.lines().count() * HIGH + 32,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#1e2430\"/>\n"
    );
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
    {
        let (y, length) = ((number + 1) * HIGH + 10, line.chars().count() * WIDE);
        let line = line.replace('&', "&amp;").replace('<', "&lt;");
        svg += &format!(
            "<text x=\"16\" y=\"{y}\" fill=\"#d8dee9\" xml:space=\"preserve\" textLength=\"{length}\">{line}</text>\n"
        );
    }
    svg + "</svg>\n"
}
