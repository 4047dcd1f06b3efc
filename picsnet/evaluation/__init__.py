"""Codecs at several settings over a set of photographs: files, measures, summaries.

    photographs x points -> jobs -> files, pictures, row.json (one each) -> rows.csv -> summary.json

A *point* is a codec at one setting (`picsnet.evaluation.points`); a *job* is a point on a picture,
and done once its ``row.json`` is there. What other tools read of a run is in
`picsnet.evaluation.rows` (a row) and `picsnet.evaluation.summary` (the summary).
"""
