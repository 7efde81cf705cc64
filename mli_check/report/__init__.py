"""The report: results documents in, one self-contained HTML page out (data, then charts, then the page)."""
