"""The order of what was shown (P3): MIND's impressions in English and in Chinese, several seeds of the product's judgement."""
