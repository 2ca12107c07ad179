"""Reports: sections of text, tables and images, written as one HTML file and as Markdown."""
