"""A report of evaluations: one folder that opens from disk, with no network.

    runs -> rows, summaries -> page data (JSON) -> index.html, pictures/, figures/

The page is one HTML file with its style and script inside, and reads the JSON that is embedded in
it. `picsnet.report.figures` draws the same charts as still figures for documents.
"""
