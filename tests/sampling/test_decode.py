from o1p_jax.sampling.decode import bucket, buckets


def test_buckets():
    assert buckets(1024) == [0, 64, 128, 192, 256, 384, 512, 768, 1024]
    assert [bucket(n) for n in (0, 1, 64, 65, 129, 193, 257, 1024, 1025)] == [0, 64, 64, 128, 192, 256, 384, 1024, 1536]
