"""Is an image what it should be?"""
