"""Other people's codecs under the interface of an evaluation: same files, same accounting."""
