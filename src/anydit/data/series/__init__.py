"""Time series: windows of tables in CSV and Parquet."""
